// Which device the text of Options::device means. Knows nothing of torch.
#pragma once

#include <string>

namespace orb_export {

// -1: the CPU; else the index of a GPU, of `n_gpus` that there are. `made_for` is the artefact's own device,
// cpu or cuda. Throws std::invalid_argument.
int choose_device(const std::string &path, const std::string &requested, const std::string &made_for,
                  int n_gpus);

}    // namespace orb_export
