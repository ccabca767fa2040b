#include "timings.h"

namespace orb_export::openmm {

Timings &timings() {
  static Timings process;
  return process;
}

}    // namespace orb_export::openmm
