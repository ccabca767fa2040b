// SPDX-License-Identifier: GPL-2.0-or-later
// What went wrong on one process, kept until all processes know of it: one that threw between two collective
// calls would leave the others waiting.
#ifndef ORBV3_FAILURE_H
#define ORBV3_FAILURE_H

#include <mpi.h>

#include <exception>
#include <new>
#include <string>

namespace orbv3 {

class Failure {
 public:
  bool any() const { return !text_.empty(); }
  const std::string &text() const { return text_; }
  void set(const std::string &text)
  {
    if (!any()) text_ = text;
  }

  // Runs `function`, which makes no collective calls, and keeps the text of what it throws. A process that has
  // failed before runs nothing.
  template <typename Function> void guard(const Function &function)
  {
    if (any()) return;
    try {
      function();
    } catch (const std::bad_alloc &) {
      text_ = "out of memory";    // short enough to need none
    } catch (const std::exception &exception) {
      text_ = exception.what();
    }
  }

  // The text of the lowest process that has one of its own, on every process; empty if none failed. Forgets it.
  std::string share(MPI_Comm world);

 private:
  std::string text_;
};

// The text of the lowest process that has one, on every process; empty if none has. Collective.
std::string first_text(const std::string &text, MPI_Comm world);

}    // namespace orbv3

#endif
