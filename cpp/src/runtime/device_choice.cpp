#include "device_choice.h"

#include <stdexcept>

namespace orb_export {

namespace {
// The number after a mark, or -1 if there is none of at most `digits` digits.
int number_after(const std::string &text, size_t mark, size_t digits) {
  const std::string number = text.substr(mark + 1);
  if (number.empty() || number.size() > digits || number.find_first_not_of("0123456789") != std::string::npos)
    return -1;
  return std::stoi(number);
}
}    // namespace

int choose_device(const std::string &path, const std::string &requested, const std::string &made_for,
                  int n_gpus) {
  const auto fail = [&](const std::string &what) {
    throw std::invalid_argument("load: `" + path + "` was exported for device `" + made_for + "` but " +
                                what);
  };
  const size_t mark = requested.find_first_of(":/");
  const std::string name = requested.substr(0, mark), kind = name == "auto" ? made_for : name;
  const bool marked = mark != std::string::npos, shared = marked && requested[mark] == '/';
  const int number = marked ? number_after(requested, mark, shared ? 6 : 2) : 0;
  if ((kind != "cpu" && kind != "cuda") || number < 0 || (marked && !shared && name != "cuda"))
    throw std::invalid_argument("load: `device` is `" + requested +
                                "` but must be auto, cpu, cuda or cuda:N");
  if (kind != made_for) fail("device `" + requested + "` was asked for");
  if (kind == "cpu") return -1;
  if (n_gpus == 0) fail("torch finds no CUDA device here");
  if (shared) return number % n_gpus;
  if (number >= n_gpus)
    fail("device `" + requested + "` was asked for, and there are " + std::to_string(n_gpus) +
         ", the first of which is cuda:0");
  return number;
}

}    // namespace orb_export
