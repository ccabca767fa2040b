// SPDX-License-Identifier: GPL-2.0-or-later
#include "failure.h"

namespace orbv3 {

namespace {
constexpr const char *ANOTHER_FAILED = "evaluate: another process failed";    // of potential.h
}    // namespace

std::string first_text(const std::string &text, MPI_Comm world)
{
  int rank = 0, n_ranks = 1;
  MPI_Comm_rank(world, &rank);
  MPI_Comm_size(world, &n_ranks);
  int first = text.empty() ? n_ranks : rank;
  MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, world);
  if (first == n_ranks) return {};
  int length = static_cast<int>(text.size());
  MPI_Bcast(&length, 1, MPI_INT, first, world);
  std::string result = text;
  result.resize(length);
  MPI_Bcast(result.data(), length, MPI_CHAR, first, world);
  return result;
}

std::string Failure::share(MPI_Comm world)
{
  const auto text = text_;
  text_.clear();
  const auto cause = first_text(text == ANOTHER_FAILED ? std::string() : text, world);
  return cause.empty() ? first_text(text, world) : cause;
}

}    // namespace orbv3
