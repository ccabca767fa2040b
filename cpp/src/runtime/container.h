// The file around a compiled potential: a zip archive whose last entry is the metadata record.
#pragma once

#include <cstdint>
#include <string>

namespace orb_export {

struct Container {
  std::string record;            // JSON text of the metadata record, CRC-32 checked
  uint64_t payload_bytes = 0;    // everything before the record's entry
  std::string payload_sha256;
  std::string file_sha256;
};

// Throws std::invalid_argument, naming the file, when it cannot be read, is no artefact or is cut short.
Container read_container(const std::string &path);

// Bytes of a file.
struct Span {
  uint64_t offset = 0, size = 0;
};

// Where an uncompressed entry of the archive lies. Throws std::invalid_argument.
Span find_entry(const std::string &path, const char *name);

}    // namespace orb_export
