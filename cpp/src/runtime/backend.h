// What opens and runs the whole program of an artefact. Two implementations: aoti.cpp, torchscript.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "orb_export/potential.h"

namespace orb_export {

class Backend {
 public:
  virtual ~Backend() = default;
  // From the inputs to the outputs of the contract, on the device. Throws what torch throws.
  virtual std::vector<at::Tensor> run(std::vector<at::Tensor> inputs) = 0;
};

// Throw std::invalid_argument when torch cannot open the file. `device` is -1 for the CPU, else a CUDA index.
// `one_thread`: evaluations do not overlap, and leave no events on the device, which graphs cannot have.
std::unique_ptr<Backend> open_aoti(const std::string &path, int device, bool one_thread);
std::unique_ptr<Backend> open_torchscript(const std::string &path, int device);

}    // namespace orb_export
