// SPDX-License-Identifier: GPL-2.0-or-later
#include "halo.h"

#include <algorithm>
#include <cstring>

namespace orbv3 {

void Halo::start(int n_all)
{
  needed.assign(n_all, 0);
  row.assign(n_all, -1);
  sent_.clear();
}

void Halo::carry_marks()
{
  content_ = Content::marks;
  silent_ = false;
}

void Halo::carry_table(double *table, int columns)
{
  content_ = Content::table;
  silent_ = false;
  data_ = reinterpret_cast<char *>(table);
  width_ = end_ = columns;
  begin_ = 0;
  bytes_ = sizeof(double);
}

void Halo::carry_rows(void *data, int64_t width, int bytes, int64_t begin, int64_t end)
{
  content_ = Content::rows;
  silent_ = data == nullptr;
  data_ = static_cast<char *>(data);
  width_ = width;
  bytes_ = bytes;
  begin_ = begin;
  end_ = end;
}

int Halo::doubles_per_atom() const
{
  return content_ == Content::marks ? 1 : static_cast<int>(message_bytes() / sizeof(double));
}

const std::vector<int> &Halo::needed_of(const int *list) const
{
  static const std::vector<int> nobody;
  const auto found = sent_.find(list);
  return found == sent_.end() ? nobody : found->second;
}

int Halo::pack_zeros(int n, double *message) const
{
  const int length = n * doubles_per_atom();
  std::fill_n(message, length, 0.0);
  return length;
}

int Halo::pack_forward(int n, const int *list, double *message) const
{
  if (silent_) return pack_zeros(n, message);
  auto *to = reinterpret_cast<char *>(message);
  if (content_ == Content::table) {
    for (int k = 0; k < n; ++k, to += row_bytes())
      std::memcpy(to, data_ + list[k] * row_bytes(), row_bytes());
  } else {
    for (const int atom : needed_of(list)) {
      std::memcpy(to, row_of(atom), row_bytes());
      to += message_bytes();
    }
  }
  return static_cast<int>((to - reinterpret_cast<char *>(message)) / sizeof(double));
}

void Halo::unpack_forward(int n, int first, const double *message)
{
  if (silent_) return;
  const auto *from = reinterpret_cast<const char *>(message);
  if (content_ == Content::table) {
    std::memcpy(data_ + first * row_bytes(), from, n * row_bytes());
    return;
  }
  for (int atom = first; atom < first + n; ++atom) {
    if (!needed[atom]) continue;
    std::memcpy(row_of(atom), from, row_bytes());
    from += message_bytes();
  }
}

int Halo::pack_reverse(int n, int first, double *message) const
{
  if (silent_) return pack_zeros(n, message);
  auto *to = reinterpret_cast<char *>(message);
  if (content_ == Content::marks) {
    std::memcpy(to, needed.data() + first, n);
    return static_cast<int>((n + sizeof(double) - 1) / sizeof(double));
  }
  for (int atom = first; atom < first + n; ++atom) {
    if (!needed[atom]) continue;
    std::memcpy(to, row_of(atom), row_bytes());
    to += message_bytes();
  }
  return static_cast<int>((to - reinterpret_cast<char *>(message)) / sizeof(double));
}

void Halo::unpack_reverse(int n, const int *list, const double *message)
{
  if (silent_) return;
  const auto *from = reinterpret_cast<const char *>(message);
  if (content_ == Content::marks) {
    if (n == 0) return;
    auto &atoms = sent_[list];
    for (int k = 0; k < n; ++k) {
      if (!from[k]) continue;
      atoms.push_back(list[k]);
      needed[list[k]] = 1;
    }
    return;
  }
  for (const int atom : needed_of(list)) {
    if (bytes_ == sizeof(float))
      add<float>(row_of(atom), from);
    else
      add<double>(row_of(atom), from);
    from += message_bytes();
  }
}

template <typename T> void Halo::add(char *to, const char *from) const
{
  auto *const sum = reinterpret_cast<T *>(to);
  const auto *const term = reinterpret_cast<const T *>(from);
  for (int64_t k = 0; k < end_ - begin_; ++k)
    sum[k] += term[k];
}

double Halo::memory_usage() const
{
  auto bytes = needed.capacity() + row.capacity() * sizeof(int64_t);
  for (const auto &list : sent_)
    bytes += list.second.capacity() * sizeof(int);
  return static_cast<double>(bytes);
}

}    // namespace orbv3
