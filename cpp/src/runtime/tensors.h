// Between the host's arrays and tensors; shared by the two backends.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "assemble.h"

namespace orb_export {

c10::Device torch_device(int device);

// The inputs of the contract, in order. On the CPU they are views of the host's arrays.
std::vector<at::Tensor> to_tensors(const Graph &graph, c10::Device device);

// Checks count, shapes and dtypes of what the potential returned. Throws std::runtime_error.
RawOutputs to_outputs(const std::vector<at::Tensor> &tensors, const Graph &graph, const Metadata &metadata);

// First line of a torch message, without the C++ stack that torch appends.
std::string short_message(const std::exception &error);

// Which of the two devices `options.device` means for this artefact: -1 CPU, else a CUDA index.
int resolve_device(const std::string &path, const Metadata &metadata, const std::string &requested);

void set_torch_threads(int threads);
int torch_threads();
const char *torch_version();

}    // namespace orb_export
