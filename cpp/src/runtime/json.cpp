#include "json.h"

#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>

namespace orb_export {
namespace {

class Parser {
 public:
  explicit Parser(const std::string &text) : text_(text) {}

  Json document() {
    Json json = value(0);
    skip_space();
    if (at_ != text_.size()) fail("nothing more");
    return json;
  }

 private:
  static constexpr int kMaxDepth = 64;    // recursion: bounds the stack that a hostile file can use

  [[noreturn]] void fail(const char *expected) const {
    throw std::invalid_argument("JSON: expected " + std::string(expected) + " at byte " +
                                std::to_string(at_));
  }

  void skip_space() {
    while (at_ < text_.size() && std::string(" \t\r\n").find(text_[at_]) != std::string::npos) ++at_;
  }

  bool take(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  bool take_word(const char *word) {
    const std::string w(word);
    if (text_.compare(at_, w.size(), w) != 0) return false;
    at_ += w.size();
    return true;
  }

  Json value(int depth) {
    if (depth > kMaxDepth) fail("less nesting");
    Json json;
    skip_space();
    if (take('{')) {
      json.value = object(depth);
    } else if (take('[')) {
      json.value = array(depth);
    } else if (at_ < text_.size() && text_[at_] == '"') {
      json.value = string();
    } else if (take_word("true")) {
      json.value = true;
    } else if (take_word("false")) {
      json.value = false;
    } else if (!take_word("null")) {
      json.value = number();
    }
    return json;
  }

  Json::Object object(int depth) {
    Json::Object members;
    if (take('}')) return members;
    do {
      skip_space();
      if (at_ >= text_.size() || text_[at_] != '"') fail("a member name");
      std::string key = string();
      if (!take(':')) fail("`:`");
      members[std::move(key)] = value(depth + 1);
    } while (take(','));
    if (!take('}')) fail("`}`");
    return members;
  }

  Json::Array array(int depth) {
    Json::Array items;
    if (take(']')) return items;
    do items.push_back(value(depth + 1));
    while (take(','));
    if (!take(']')) fail("`]`");
    return items;
  }

  double number() {
    const size_t start = at_;
    auto digits = [&] {
      const size_t first = at_;
      while (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_]))) ++at_;
      if (at_ == first) fail("a value");
    };
    take_word("-");
    digits();
    if (take_word(".")) digits();
    if (take_word("e") || take_word("E")) {
      if (!take_word("+")) take_word("-");
      digits();
    }
    return std::strtod(text_.substr(start, at_ - start).c_str(), nullptr);
  }

  std::string string() {
    std::string out;
    ++at_;
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] == '\\')
        escape(out);
      else
        out += text_[at_++];
    }
    if (at_ >= text_.size()) fail("the end of a string");
    ++at_;
    return out;
  }

  void escape(std::string &out) {
    static const std::string names = "\"\\/bfnrt", characters = "\"\\/\b\f\n\r\t";
    ++at_;
    if (at_ >= text_.size()) fail("an escape");
    const size_t which = names.find(text_[at_]);
    if (which != std::string::npos) {
      out += characters[which];
      ++at_;
    } else if (take_word("u")) {
      append_utf8(out, code_point());
    } else {
      fail("an escape");
    }
  }

  uint32_t hex4() {
    uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      if (at_ >= text_.size() || !std::isxdigit(static_cast<unsigned char>(text_[at_])))
        fail("four hexadecimal digits");
      code = code * 16 + static_cast<uint32_t>(std::stoi(text_.substr(at_, 1), nullptr, 16));
    }
    return code;
  }

  uint32_t code_point() {
    const uint32_t high = hex4();
    if (high < 0xd800 || high > 0xdbff) return high;
    if (!take_word("\\u")) fail("a low surrogate");
    return 0x10000 + ((high - 0xd800) << 10) + (hex4() - 0xdc00);
  }

  static void append_utf8(std::string &out, uint32_t c) {
    if (c < 0x80) {
      out += static_cast<char>(c);
      return;
    }
    const int extra = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint8_t lead[4] = {0, 0xc0, 0xe0, 0xf0};
    out += static_cast<char>(lead[extra] | (c >> (6 * extra)));
    for (int i = extra - 1; i >= 0; --i) out += static_cast<char>(0x80 | ((c >> (6 * i)) & 0x3f));
  }

  const std::string &text_;
  size_t at_ = 0;
};

}    // namespace

Json Json::parse(const std::string &text) { return Parser(text).document(); }

const Json *Json::find(const std::string &key) const {
  const Object *members = object();
  if (!members) return nullptr;
  const auto found = members->find(key);
  return found == members->end() ? nullptr : &found->second;
}

}    // namespace orb_export
