#include "container.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <system_error>
#include <utility>
#include <vector>

#include "orb_export/contract.h"
#include "sha256.h"

namespace orb_export {
namespace {

// Zip structures: PKWARE APPNOTE 4.3.7 (local header), 4.3.12 (central directory), 4.3.16 (end record).
constexpr uint32_t kLocalSignature = 0x04034b50, kCentralSignature = 0x02014b50, kEndSignature = 0x06054b50;
constexpr size_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22, kMaxComment = 65535;
constexpr uint64_t kZip64 = 0xffffffff;

uint64_t little_endian(const std::string &bytes, size_t at, int size) {
  uint64_t value = 0;
  for (int i = size - 1; i >= 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

uint32_t crc32(const std::string &bytes) {
  uint32_t crc = 0xffffffff;
  for (unsigned char byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0xedb88320u : 0u);
  }
  return ~crc;
}

struct Entry {
  uint64_t offset = 0, size = 0, method = 0, crc = 0;
};

class Reader {
 public:
  explicit Reader(const std::string &path) : path_(path) {
    std::error_code error;
    if (!std::filesystem::exists(path, error)) fail("does not exist");
    if (!std::filesystem::is_regular_file(path, error)) fail("is not a file");
    file_.open(path, std::ios::binary);
    size_ = std::filesystem::file_size(path, error);
    if (!file_ || error) fail("cannot be opened");
  }

  [[noreturn]] void fail(const std::string &what) const {
    throw std::invalid_argument("load: `" + path_ + "` " + what);
  }

  std::string read(uint64_t offset, uint64_t size) {
    if (offset > size_ || size > size_ - offset)
      fail("is truncated or altered: a record points past its end");
    std::string bytes(size, '\0');
    file_.seekg(static_cast<std::streamoff>(offset));
    file_.read(bytes.data(), static_cast<std::streamsize>(size));
    if (!file_) fail("cannot be read");
    return bytes;
  }

  std::string end_record() {
    if (size_ < kEndSize)
      fail("is not an orb_export artefact: " + std::to_string(size_) + " bytes, no zip archive");
    const uint64_t length = std::min<uint64_t>(size_, kEndSize + kMaxComment);
    const std::string tail = read(size_ - length, length);
    for (size_t at = tail.size() - kEndSize + 1; at-- > 0;)
      if (little_endian(tail, at, 4) == kEndSignature) return tail.substr(at, kEndSize);
    const bool zip = little_endian(read(0, 4), 0, 4) == kLocalSignature;
    fail(zip ? "is truncated: it begins as a zip archive but its directory is missing"
             : "is not an orb_export artefact: it is no zip archive");
  }

  // From the end record, which every archive has.
  std::pair<uint64_t, uint64_t> directory_span() {
    const std::string end = end_record();
    const uint64_t size = little_endian(end, 12, 4), offset = little_endian(end, 16, 4);
    if (size == kZip64 || offset == kZip64)
      fail("is a zip64 archive (4 GiB or more), which this runtime does not read");
    return {offset, size};
  }

  Entry find(const std::string &directory, const char *wanted) {
    for (size_t at = 0; at + kCentralSize <= directory.size();) {
      if (little_endian(directory, at, 4) != kCentralSignature)
        fail("is altered: its zip directory is damaged");
      const size_t name = little_endian(directory, at + 28, 2);
      const size_t tail = little_endian(directory, at + 30, 2) + little_endian(directory, at + 32, 2);
      if (directory.compare(at + kCentralSize, name, wanted) == 0)
        return {little_endian(directory, at + 42, 4), little_endian(directory, at + 24, 4),
                little_endian(directory, at + 10, 2), little_endian(directory, at + 16, 4)};
      at += kCentralSize + name + tail;
    }
    fail("is not an orb_export artefact: the archive has no record `" + std::string(wanted) + "`");
  }

  // Where the bytes of an uncompressed entry begin; `what` is its name in messages.
  uint64_t content(const Entry &entry, const char *what) {
    if (entry.method != 0) fail("is altered: its " + std::string(what) + " is compressed");
    const std::string header = read(entry.offset, kLocalSize);
    if (little_endian(header, 0, 4) != kLocalSignature)
      fail("is altered: its " + std::string(what) + " is not where the directory says");
    return entry.offset + kLocalSize + little_endian(header, 26, 2) + little_endian(header, 28, 2);
  }

  std::string read_record(const Entry &entry, uint64_t directory_offset) {
    const uint64_t start = content(entry, "metadata record");
    std::string record = read(start, entry.size);
    if (start + entry.size != directory_offset) fail("is altered: its metadata record is not the last entry");
    if (crc32(record) != entry.crc) fail("is altered: the checksum of its metadata record does not match");
    return record;
  }

  void hash(Container &container) {
    Sha256 running;
    std::vector<char> chunk(1 << 20);
    file_.seekg(0);
    for (uint64_t at = 0; at < size_;) {
      const uint64_t stop = at < container.payload_bytes ? container.payload_bytes : size_;
      const auto n = static_cast<std::streamsize>(std::min<uint64_t>(stop - at, chunk.size()));
      file_.read(chunk.data(), n);
      if (!file_) fail("cannot be read");
      running.update(chunk.data(), static_cast<size_t>(n));
      at += static_cast<uint64_t>(n);
      if (at == container.payload_bytes) container.payload_sha256 = running.hex();
    }
    container.file_sha256 = running.hex();
  }

 private:
  std::string path_;
  std::ifstream file_;
  uint64_t size_ = 0;
};

}    // namespace

Container read_container(const std::string &path) {
  Reader reader(path);
  const auto [offset, size] = reader.directory_span();
  const Entry entry = reader.find(reader.read(offset, size), kMetadataEntry);
  Container container;
  container.record = reader.read_record(entry, offset);
  container.payload_bytes = entry.offset;
  reader.hash(container);
  return container;
}

Span find_entry(const std::string &path, const char *name) {
  Reader reader(path);
  const auto [offset, size] = reader.directory_span();
  const Entry entry = reader.find(reader.read(offset, size), name);
  return {reader.content(entry, name), entry.size};
}

}    // namespace orb_export
