// The weights of the steps of an AOTInductor artefact: a safetensors entry of the archive, mapped into
// memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

namespace orb_export {

// Tensors by name, views of the mapped file as long as they live. Throws std::invalid_argument.
std::map<std::string, at::Tensor> map_weights(const std::string &path);

}    // namespace orb_export
