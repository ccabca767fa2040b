// The smallest test harness that says what failed. A test program returns failures() from main().
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>

namespace orb_export_test {

inline int &failures() {
  static int count = 0;
  return count;
}

inline void check(bool holds, const char *condition, const char *file, int line) {
  if (holds) return;
  ++failures();
  std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, condition);
}

// The message of the std::invalid_argument that `function` throws; empty when it throws none.
template <class Function>
std::string rejection(const Function &function) {
  try {
    function();
  } catch (const std::invalid_argument &error) {
    return error.what();
  }
  return "";
}

}    // namespace orb_export_test

#define CHECK(condition) orb_export_test::check(condition, #condition, __FILE__, __LINE__)
