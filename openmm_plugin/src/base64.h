// Binary content as text of an XML attribute, RFC 4648 section 4.
#pragma once

#include <string>
#include <string_view>

namespace orb_export::openmm {

std::string to_base64(std::string_view bytes);
// Throws std::invalid_argument for text that to_base64 does not give.
std::string from_base64(std::string_view text);

}    // namespace orb_export::openmm
