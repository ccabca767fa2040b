#include "metadata.h"

#include <sys/utsname.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "json.h"
#include "orb_export/contract.h"

namespace orb_export {
namespace {

std::string show(double value) {
  std::string text = std::to_string(value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

std::string quote(const std::vector<std::string> &names) {
  std::string text;
  for (const auto &name : names) text += (text.empty() ? "`" : ", `") + name + "`";
  return text.empty() ? "nothing" : text;
}

// Reads members of the record; every complaint names the file and the member.
class Record {
 public:
  Record(const std::string &path, const std::string &text) : path_(path) {
    try {
      json_ = Json::parse(text);
    } catch (const std::invalid_argument &error) {
      fail("has an unreadable metadata record: " + std::string(error.what()));
    }
    if (!json_.object()) fail("has a metadata record that is no JSON object");
  }

  [[noreturn]] void fail(const std::string &what) const {
    throw std::invalid_argument("load: `" + path_ + "` " + what);
  }

  // The artefact says one thing and this runtime needs another.
  [[noreturn]] void mismatch(const std::string &name, const std::string &has,
                             const std::string &needs) const {
    fail("has `" + name + "` " + has + " but this runtime needs " + needs);
  }

  double number(const std::string &name) const {
    const double *value = member(name).number();
    if (!value || !std::isfinite(*value)) fail("has a metadata record whose `" + name + "` is no number");
    return *value;
  }

  int64_t integer(const std::string &name) const {
    const double value = number(name);
    if (value != std::floor(value) || std::abs(value) > 9e15)
      fail("has a metadata record whose `" + name + "` is " + show(value) + ", no integer");
    return static_cast<int64_t>(value);
  }

  bool boolean(const std::string &name) const {
    const bool *value = member(name).boolean();
    if (!value) fail("has a metadata record whose `" + name + "` is neither true nor false");
    return *value;
  }

  std::string string(const std::string &name) const {
    const std::string *value = member(name).string();
    if (!value) fail("has a metadata record whose `" + name + "` is no string");
    return *value;
  }

  std::string one_of(const std::string &name, const std::vector<std::string> &choices) const {
    std::string value = string(name);
    if (std::find(choices.begin(), choices.end(), value) == choices.end())
      mismatch(name, "`" + value + "`", "one of " + quote(choices));
    return value;
  }

  const Json::Array &array(const std::string &name) const {
    const Json::Array *value = member(name).array();
    if (!value) fail("has a metadata record whose `" + name + "` is no list");
    return *value;
  }

  bool has(const std::string &name) const { return json_.find(name) != nullptr; }

  // Members of members are addressed as "arch.machine".
  const Json &member(const std::string &name) const {
    const Json *at = &json_;
    for (size_t start = 0; at && start <= name.size();) {
      const size_t stop = std::min(name.find('.', start), name.size());
      at = at->find(name.substr(start, stop - start));
      start = stop + 1;
    }
    if (!at) fail("has a metadata record without `" + name + "`");
    return *at;
  }

 private:
  std::string path_;
  Json json_;
};

template <size_t n>
void check_fields(const Record &record, const std::string &name,
                  const std::array<const char *, n> &expected) {
  std::vector<std::string> has;
  for (const Json &field : record.array(name)) {
    const Json *value = field.find("name");
    has.push_back(value && value->string() ? *value->string() : "?");
  }
  const std::vector<std::string> needs(expected.begin(), expected.end());
  if (has != needs) record.mismatch(name, quote(has), quote(needs));
}

void check_tie_rule(const Record &record) {
  const double tolerance = record.number("tie_rule.tolerance");
  if (tolerance != kTieTolerance)
    record.mismatch("tie_rule.tolerance", show(tolerance * 1e6) + "e-6", "1e-6");
  const Json::Array &direction = record.array("tie_rule.direction");
  bool same = direction.size() == 3;
  for (size_t i = 0; same && i < 3; ++i)
    same = direction[i].number() && *direction[i].number() == kTieDirection[i];
  if (!same)
    record.fail("orders neighbors at equal distance along another `tie_rule.direction` than this runtime");
}

// "2.13.0+cpu" -> "2.13": torch keeps its binary interface within a minor version only.
std::string minor_version(const std::string &version) {
  const size_t dot = version.find('.');
  return version.substr(0, version.find_first_not_of("0123456789", dot == std::string::npos ? 0 : dot + 1));
}

void check_torch_version(const Record &record, const std::string &has, const std::string &runtime) {
  if (minor_version(has) != minor_version(runtime))
    record.fail("was exported with torch " + has + " but this runtime has torch " + runtime +
                "; export it again with torch " + minor_version(runtime));
}

bool cpu_supports(const std::string &feature) {
#if defined(__x86_64__)
  if (feature == "x86-64-v3") return __builtin_cpu_supports("x86-64-v3");
  if (feature == "x86-64-v4") return __builtin_cpu_supports("x86-64-v4");
  if (feature == "avx512_vnni") return __builtin_cpu_supports("avx512vnni");
#endif
  (void)feature;
  return false;
}

// AOTInductor compiles for a processor; code for another one ends in an illegal instruction.
void check_processor(const Record &record) {
  utsname host{};
  uname(&host);
  const std::string machine = record.string("arch.machine");
  if (machine != host.machine)
    record.fail("was compiled for `" + machine + "` but this machine is `" + host.machine + "`");
  for (const Json &feature : record.array("arch.features")) {
    const std::string name = feature.string() ? *feature.string() : "?";
    if (!cpu_supports(name))
      record.fail("was compiled for a processor with `" + name +
                  "`, which this one lacks; export it again here");
  }
}

std::vector<int> read_elements(const Record &record) {
  std::vector<int> elements;
  for (const Json &element : record.array("elements")) {
    const double value = element.number() ? *element.number() : 0.0;
    if (!(value >= 1 && value <= kMaxAtomicNumber) || value != std::floor(value))
      record.fail("lists an element that is no atomic number from 1 to " + std::to_string(kMaxAtomicNumber));
    elements.push_back(static_cast<int>(value));
  }
  if (elements.empty()) record.fail("lists no `elements`");
  return elements;
}

std::vector<std::string> read_programs(const Record &record, const std::string &kind) {
  std::vector<std::string> programs;
  for (const Json &program : record.array("programs"))
    programs.push_back(program.string() ? *program.string() : "?");
  std::vector<std::string> whole = {kWholeProgram}, all = whole;
  all.insert(all.end(), kSteps.begin(), kSteps.end());
  if (kind == "conservative") all.insert(all.end(), kGradientSteps.begin(), kGradientSteps.end());
  if (programs != whole && programs != all)
    record.mismatch("programs", quote(programs), quote(whole) + " alone or " + quote(all));
  return programs;
}

void check_payload(const Record &record, const Container &container) {
  const int64_t bytes = record.integer("payload_bytes");
  if (bytes != static_cast<int64_t>(container.payload_bytes))
    record.fail("is altered: its payload has " + std::to_string(container.payload_bytes) +
                " bytes but its record says " + std::to_string(bytes));
  const std::string sha256 = record.string("payload_sha256");
  if (sha256 != container.payload_sha256)
    record.fail("is altered: its payload has SHA-256 " + container.payload_sha256 + " but its record says " +
                sha256);
}

}    // namespace

Metadata read_metadata(const std::string &path, const Container &container,
                       const std::string &torch_version) {
  const Record record(path, container.record);
  Metadata metadata;
  metadata.json = container.record;
  metadata.file_sha256 = container.file_sha256;
  metadata.schema_version = static_cast<int>(record.integer("schema_version"));
  if (metadata.schema_version != kSchemaVersion)
    record.mismatch("schema_version", std::to_string(metadata.schema_version),
                    std::to_string(kSchemaVersion));
  check_payload(record, container);
  metadata.format = record.one_of("format", {"aoti", "torchscript"});
  metadata.kind = record.one_of("kind", {"conservative", "direct"});
  check_fields(record, "inputs", kInputs);
  if (metadata.kind == "direct")
    check_fields(record, "outputs", kDirectOutputs);
  else
    check_fields(record, "outputs", kConservativeOutputs);
  metadata.model = record.string("model");
  metadata.dtype = record.one_of("dtype", {"float32", "float64"});
  metadata.precision = record.has("precision") ? record.string("precision") : metadata.dtype;
  metadata.device = record.one_of("device", {"cpu", "cuda"});
  metadata.torch_version = record.string("torch_version");
  check_torch_version(record, metadata.torch_version, torch_version);
  if (metadata.format == "aoti") check_processor(record);
  metadata.weights_sha256 = record.string("weights_sha256");
  metadata.cutoff = record.number("cutoff");
  if (!(metadata.cutoff > 0)) record.mismatch("cutoff", show(metadata.cutoff), "a positive one");
  metadata.max_neighbors = record.integer("max_neighbors");
  if (metadata.max_neighbors < 1)
    record.mismatch("max_neighbors", std::to_string(metadata.max_neighbors), "at least 1");
  check_tie_rule(record);
  metadata.has_charge_spin = record.boolean("has_charge_spin");
  metadata.has_stress = record.boolean("has_stress");
  metadata.elements = read_elements(record);
  metadata.channels = record.integer("sizes.channels");
  metadata.hidden = record.integer("sizes.hidden");
  metadata.layers = record.integer("sizes.layers");
  metadata.programs = read_programs(record, metadata.kind);
  return metadata;
}

}    // namespace orb_export
