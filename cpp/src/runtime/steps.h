// The steps of python/orb_export/model/chain.py as compiled programs, one implementation beside each backend.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "orb_export/potential.h"

namespace orb_export {

class Steps {
 public:
  virtual ~Steps() = default;
  // Evaluates the method `step` of contract.h; `layer` counts for those of a layer only. Inputs and outputs
  // as in chain.py, without the weights. Throws what torch throws.
  virtual std::vector<at::Tensor> run(const char *step, int64_t layer, std::vector<at::Tensor> inputs) = 0;
  // The matrices (C, H) that give an atom's share in its edges, as center and as neighbor.
  virtual std::pair<at::Tensor, at::Tensor> projections(int64_t layer) = 0;
};

// As open_aoti and open_torchscript of backend.h.
std::unique_ptr<Steps> open_aoti_steps(const std::string &path, const Metadata &metadata, int device);
std::unique_ptr<Steps> open_torchscript_steps(const std::string &path, const Metadata &metadata, int device);

}    // namespace orb_export
