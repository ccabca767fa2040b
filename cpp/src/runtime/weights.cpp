#include "weights.h"

#include <ATen/ops/from_blob.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <stdexcept>

#include "container.h"
#include "json.h"
#include "orb_export/contract.h"

namespace orb_export {
namespace {

// A read-only view of a part of a file. Pages are read when they are touched and shared by processes.
class Mapping {
 public:
  Mapping(const std::string &path, const Span &span) {
    const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE)), offset = span.offset / page * page;
    length_ = span.size + (span.offset - offset);
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    // private and writable: torch takes mutable pointers, but nothing writes
    base_ = file < 0 ? MAP_FAILED
                     : mmap(nullptr, length_, PROT_READ | PROT_WRITE, MAP_PRIVATE, file,
                            static_cast<off_t>(offset));
    if (file >= 0) close(file);
    if (base_ == MAP_FAILED)
      throw std::invalid_argument("load: `" + path + "` cannot be mapped: " + std::strerror(errno));
    data_ = static_cast<char *>(base_) + (span.offset - offset);
  }
  ~Mapping() { munmap(base_, length_); }
  Mapping(const Mapping &) = delete;
  Mapping &operator=(const Mapping &) = delete;
  char *data() const { return data_; }

 private:
  void *base_;
  uint64_t length_;
  char *data_;
};

at::ScalarType scalar_type(const std::string &name) {
  if (name == "F32") return at::kFloat;
  if (name == "F64") return at::kDouble;
  if (name == "BF16") return at::kBFloat16;
  if (name == "I64") return at::kLong;
  throw std::invalid_argument("weights of type " + name);
}

std::vector<int64_t> integers(const Json *json) {
  std::vector<int64_t> values;
  if (!json || !json->array()) throw std::invalid_argument("a list of integers is missing");
  for (const Json &value : *json->array()) {
    if (!value.number()) throw std::invalid_argument("a list of integers has another value");
    values.push_back(static_cast<int64_t>(*value.number()));
  }
  return values;
}

const std::string &text(const Json *json) {
  if (!json || !json->string()) throw std::invalid_argument("a string is missing");
  return *json->string();
}

// The format of https://huggingface.co/docs/safetensors: header size, JSON header, then all numbers.
std::map<std::string, at::Tensor> read(const std::shared_ptr<Mapping> &mapping, uint64_t size) {
  uint64_t header = 0;
  if (size < sizeof(header)) throw std::invalid_argument("the weights are cut short");
  std::memcpy(&header, mapping->data(), sizeof(header));
  if (header > size - sizeof(header)) throw std::invalid_argument("the weights are cut short");
  const Json json = Json::parse(std::string(mapping->data() + sizeof(header), header));
  const int64_t begin = static_cast<int64_t>(sizeof(header) + header),
                room = static_cast<int64_t>(size) - begin;
  std::map<std::string, at::Tensor> weights;
  if (!json.object()) throw std::invalid_argument("the header is no object");
  for (const auto &[name, entry] : *json.object()) {
    if (name == "__metadata__") continue;
    const auto sizes = integers(entry.find("shape")), offsets = integers(entry.find("data_offsets"));
    const auto options = at::TensorOptions().dtype(scalar_type(text(entry.find("dtype"))));
    int64_t bytes = static_cast<int64_t>(options.dtype().itemsize());
    for (int64_t length : sizes) bytes *= length;
    if (offsets.size() != 2 || offsets[0] < 0 || offsets[1] > room || offsets[1] - offsets[0] != bytes)
      throw std::invalid_argument("`" + name + "` lies outside");
    weights[name] = at::from_blob(mapping->data() + begin + offsets[0], sizes, [mapping](void *) {}, options);
  }
  return weights;
}

}    // namespace

std::map<std::string, at::Tensor> map_weights(const std::string &path) {
  const Span span = find_entry(path, kWeightsEntry);
  try {
    return read(std::make_shared<Mapping>(path, span), span.size);
  } catch (const std::exception &error) {
    throw std::invalid_argument("load: `" + path + "` has unreadable weights: " + error.what());
  }
}

}    // namespace orb_export
