#include "orbv3_force_proxy.h"

#include <openmm/OpenMMException.h>
#include <openmm/serialization/SerializationNode.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <stdexcept>

#include "base64.h"
#include "orbv3_force.h"

namespace orb_export::openmm {
namespace {

constexpr int kVersion = 1;
constexpr const char *kAxes[3] = {"periodicA", "periodicB", "periodicC"};
constexpr const char *kContent = "Artefact";    // child with the attribute base64
constexpr const char *kTexts[] = {"type",    "name",   "artefact",  "sha256",  "particles",
                                  "numbers", "device", "precision", "program", "prefix"};
constexpr const char *kNumbers[] = {"version",     "forceGroup", "periodicA", "periodicB",
                                    "periodicC",   "charge",     "spin",      "scale",
                                    "memoryLimit", "threads",    "skin"};

template <size_t n>
bool contains(const char *const (&names)[n], const std::string &name) {
  return std::find(names, names + n, name) != names + n;
}

[[noreturn]] void fail(const std::string &what) {
  throw OpenMM::OpenMMException("OrbV3Force: its XML has " + what);
}

std::string to_words(const std::vector<int> &values) {
  std::string text;
  for (int value : values) text.append(text.empty() ? "" : " ").append(std::to_string(value));
  return text;
}

// 0 1 2 7 5 -> "0-2 7 5"
std::string to_ranges(const std::vector<int> &values) {
  std::string text;
  for (size_t first = 0, last = 0; first < values.size(); first = last + 1) {
    for (last = first; last + 1 < values.size() && values[last + 1] == values[last] + 1;) ++last;
    text.append(text.empty() ? "" : " ").append(std::to_string(values[first]));
    if (last > first) text.append("-").append(std::to_string(values[last]));
  }
  return text;
}

int take_integer(const char *&at, const char *end, const std::string &word) {
  int value = 0;
  const auto [stop, error] = std::from_chars(at, end, value);
  if (error != std::errc() || value < 0) fail("`" + word + "` where a number or a range is expected");
  at = stop;
  return value;
}

// The inverse of both; no more than `limit` values, so that a wrong range cannot fill the memory.
std::vector<int> from_ranges(const std::string &text, size_t limit) {
  std::vector<int> values;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    const char *at = word.data(), *const end = at + word.size();
    const int first = take_integer(at, end, word);
    const int last = at < end && *at == '-' ? take_integer(++at, end, word) : first;
    if (at != end || last < first) fail("`" + word + "` where a number or a range is expected");
    if (static_cast<size_t>(last - first) >= limit - values.size())
      fail("more `particles` than `numbers`, which are " + std::to_string(limit));
    for (int value = first; value <= last; ++value) values.push_back(value);
  }
  return values;
}

// OpenMM reads what is no number as 0.
void check_number(const std::string &name, const std::string &value) {
  char *end = nullptr;
  std::strtod(value.c_str(), &end);
  if (value.empty() || *end != '\0') fail("`" + value + "` as `" + name + "`, which must be a number");
}

// A misspelt attribute would otherwise leave the default without a word.
void check_names(const OpenMM::SerializationNode &node) {
  for (const auto &[name, value] : node.getProperties()) {
    const bool text = contains(kTexts, name);
    if (!text && !contains(kNumbers, name))
      fail("the attribute `" + name + "`, which OrbV3Force does not have");
    if (!text) check_number(name, value);
  }
  for (const auto &child : node.getChildren())
    if (child.getName() != kContent)
      fail("the element `" + child.getName() + "`, which OrbV3Force does not have");
}

std::shared_ptr<const std::string> content_of(const OpenMM::SerializationNode &node) {
  if (node.getChildren().empty()) return nullptr;
  if (node.getChildren().size() > 1) fail("more than one artefact inside");
  try {
    return std::make_shared<const std::string>(
        from_base64(node.getChildNode(kContent).getStringProperty("base64")));
  } catch (const std::invalid_argument &error) {
    fail("an artefact inside that " + std::string(error.what()));
  }
}

}    // namespace

void OrbV3ForceProxy::serialize(const void *object, OpenMM::SerializationNode &node) const {
  const auto &force = *static_cast<const OrbV3Force *>(object);
  node.setIntProperty("version", kVersion);
  node.setIntProperty("forceGroup", force.getForceGroup());
  node.setStringProperty("name", force.getName());
  node.setStringProperty("artefact", force.getArtefact());
  node.setStringProperty("sha256", force.getSha256());
  node.setStringProperty("particles", to_ranges(force.getParticles()));
  node.setStringProperty("numbers", to_words(force.getAtomicNumbers()));
  for (size_t axis = 0; axis < 3; ++axis) node.setBoolProperty(kAxes[axis], force.getPeriodicity()[axis]);
  if (force.hasChargeAndSpin()) {
    node.setDoubleProperty("charge", force.getDefaultCharge());
    node.setDoubleProperty("spin", force.getDefaultSpin());
  }
  node.setDoubleProperty("scale", force.getDefaultScale());
  node.setStringProperty("device", force.getDevice());
  node.setStringProperty("precision", force.getPrecision());
  if (force.getProgram() != "auto") node.setStringProperty("program", force.getProgram());
  node.setLongProperty("memoryLimit", force.getMemoryLimit());
  node.setIntProperty("threads", force.getThreads());
  node.setDoubleProperty("skin", force.getSkin());
  node.setStringProperty("prefix", force.getParameterPrefix());
  if (force.getContent())
    node.createChildNode(kContent).setStringProperty("base64", to_base64(*force.getContent()));
}

void *OrbV3ForceProxy::deserialize(const OpenMM::SerializationNode &node) const {
  const int version = node.getIntProperty("version");
  if (version != kVersion)
    fail("version " + std::to_string(version) + " but this orb_export reads " + std::to_string(kVersion));

  check_names(node);

  auto force =
      std::make_unique<OrbV3Force>(node.getStringProperty("artefact"), node.getStringProperty("sha256"));
  const auto numbers =
      from_ranges(node.getStringProperty("numbers"), node.getStringProperty("numbers").size());
  const auto particles = from_ranges(node.getStringProperty("particles"), numbers.size());
  if (particles.size() != numbers.size())
    fail(std::to_string(particles.size()) + " `particles` but " + std::to_string(numbers.size()) +
         " `numbers`");
  for (size_t k = 0; k < particles.size(); ++k) force->addParticle(particles[k], numbers[k]);

  std::array<bool, 3> periodicity{};
  for (size_t axis = 0; axis < 3; ++axis) periodicity[axis] = node.getBoolProperty(kAxes[axis]);
  force->setPeriodicity(periodicity);
  if (node.hasProperty("charge") != node.hasProperty("spin"))
    fail("only one of `charge` and `spin`, which belong together");
  if (node.hasProperty("charge"))
    force->setDefaultChargeAndSpin(node.getDoubleProperty("charge"), node.getDoubleProperty("spin"));
  force->setDefaultScale(node.getDoubleProperty("scale"));
  force->setDevice(node.getStringProperty("device"));
  force->setPrecision(node.getStringProperty("precision"));
  force->setProgram(node.getStringProperty("program", "auto"));
  force->setMemoryLimit(node.getLongProperty("memoryLimit"));
  force->setThreads(node.getIntProperty("threads"));
  force->setSkin(node.getDoubleProperty("skin"));
  force->setParameterPrefix(node.getStringProperty("prefix"));
  force->setForceGroup(node.getIntProperty("forceGroup"));
  force->setName(node.getStringProperty("name"));
  force->setContent(content_of(node));
  return force.release();
}

}    // namespace orb_export::openmm
