// SPDX-License-Identifier: GPL-2.0-or-later
// Which ghosts take part in an exchange, and what messages between processes contain. Knows neither LAMMPS
// nor MPI: the four functions of a pair style that pack and unpack messages call those of the same name here.
#ifndef ORBV3_HALO_H
#define ORBV3_HALO_H

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace orbv3 {

// Indices of atoms are local ones of LAMMPS: own atoms first, then ghosts. LAMMPS moves data in several hops
// (a corner goes through a neighbor), and every ghost on the way is in its lists. Messages here hold only
// those that somebody needs: needs are collected first, against the direction of the data.
class Halo {
 public:
  // A step with new edges: nothing is needed yet, no atom has a row.
  void start(int n_all);

  std::vector<char>
      needed;    // (own + ghosts) by this process, and after the marks by any behind it
  std::vector<int64_t>
      row;    // (own + ghosts) where the atom is in the arrays of the model; -1: nowhere

  // What the next exchange carries.
  void carry_marks();                              // reverse: needs
  void carry_table(double *table, int columns);    // forward: (own + ghosts, columns), all ghosts
  void carry_rows(void *data, int64_t width, int bytes, int64_t begin, int64_t end);
  // Instead of what the last of these said: zeros go out, and what comes in is ignored. Also for rows at null.
  void carry_nothing() { silent_ = true; }
  int doubles_per_atom() const;    // the most that one atom may take of a message

  // Return the length of the message in doubles.
  int pack_forward(int n, const int *list, double *message) const;
  int pack_reverse(int n, int first, double *message) const;
  void unpack_forward(int n, int first, const double *message);
  void unpack_reverse(int n, const int *list, const double *message);

  double memory_usage() const;

 private:
  enum class Content { marks, table, rows };
  // Bytes of the columns that are carried, of one row in the model and in a message: floats two to a double.
  std::size_t row_bytes() const { return static_cast<std::size_t>((end_ - begin_) * bytes_); }
  std::size_t message_bytes() const { return (row_bytes() + 7) / 8 * 8; }
  char *row_of(int atom) const { return data_ + (row[atom] * width_ + begin_) * bytes_; }
  const std::vector<int> &needed_of(const int *list) const;
  int pack_zeros(int n, double *message) const;
  template <typename T> void add(char *to, const char *from) const;

  Content content_ = Content::marks;
  bool silent_ = false;
  char *data_ = nullptr;
  int64_t width_ = 0, begin_ = 0, end_ = 0;
  int bytes_ = 8;
  // by the list of atoms that LAMMPS sends to one process, which is the same object in every exchange
  // between two builds of its lists: those of the atoms that are needed there
  std::unordered_map<const int *, std::vector<int>> sent_;
};

}    // namespace orbv3

#endif
