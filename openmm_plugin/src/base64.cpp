#include "base64.h"

#include <array>
#include <cstdint>
#include <stdexcept>

namespace orb_export::openmm {
namespace {

constexpr char kLetters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::array<int8_t, 256> values_of_letters() {
  std::array<int8_t, 256> values;
  values.fill(-1);
  for (int8_t value = 0; value < 64; ++value) values[static_cast<unsigned char>(kLetters[value])] = value;
  return values;
}

}    // namespace

std::string to_base64(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k)
      group = group << 8 | (at + k < bytes.size() ? static_cast<unsigned char>(bytes[at + k]) : 0u);
    for (size_t k = 0; k < 4; ++k)
      text.push_back(at + k <= bytes.size() ? kLetters[group >> (18 - 6 * k) & 63] : '=');
  }
  return text;
}

std::string from_base64(std::string_view text) {
  static const auto values = values_of_letters();
  const auto end = text.find_last_not_of('=');
  const size_t letters = end == std::string_view::npos ? 0 : end + 1;
  if (text.size() % 4 != 0 || text.size() - letters > 2)
    throw std::invalid_argument("is no base64: it has " + std::to_string(text.size()) + " letters");
  std::string bytes;
  bytes.reserve(letters * 3 / 4);
  uint32_t pending = 0;
  for (size_t at = 0; at < letters; ++at) {
    const int8_t value = values[static_cast<unsigned char>(text[at])];
    if (value < 0)
      throw std::invalid_argument("is no base64: letter " + std::to_string(at) + " is none of its alphabet");
    pending = pending << 6 | static_cast<uint32_t>(value);
    if (const size_t in_group = at % 4; in_group > 0)
      bytes.push_back(static_cast<char>(pending >> (6 - 2 * in_group) & 255));
  }
  return bytes;
}

}    // namespace orb_export::openmm
