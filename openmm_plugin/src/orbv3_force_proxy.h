// OrbV3Force as XML. Particles and atomic numbers are one string each, so that a large System stays small:
// particles="0-2 7 5" numbers="8 1 1 6 6".
#pragma once

#include <openmm/serialization/SerializationProxy.h>

namespace orb_export::openmm {

class OrbV3ForceProxy : public OpenMM::SerializationProxy {
 public:
  OrbV3ForceProxy() : SerializationProxy("OrbV3Force") {}
  void serialize(const void *object, OpenMM::SerializationNode &node) const override;
  void *deserialize(const OpenMM::SerializationNode &node) const override;
};

}    // namespace orb_export::openmm
