// A JSON reader (RFC 8259), just large enough for the metadata record of an artefact.
#pragma once

#include <map>
#include <string>
#include <variant>
#include <vector>

namespace orb_export {

class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::map<std::string, Json>;

  // Throws std::invalid_argument with the position of the first fault.
  static Json parse(const std::string &text);

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value); }
  // Typed access; nullptr when the value is of another type.
  const bool *boolean() const { return std::get_if<bool>(&value); }
  const double *number() const { return std::get_if<double>(&value); }
  const std::string *string() const { return std::get_if<std::string>(&value); }
  const Array *array() const { return std::get_if<Array>(&value); }
  const Object *object() const { return std::get_if<Object>(&value); }
  // Member of an object; nullptr when absent or when this is no object.
  const Json *find(const std::string &key) const;

  std::variant<std::nullptr_t, bool, double, std::string, Array, Object> value = nullptr;
};

}    // namespace orb_export
