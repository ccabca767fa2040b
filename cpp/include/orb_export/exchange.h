// What processes that share one system do between the layers of a potential. No torch; a host implements it
// over its own communication.
#pragma once

#include <cstdint>

namespace orb_export {

// Numbers of atoms in host memory, row-major: `width` numbers of 4 (float) or 8 (double) bytes for each atom
// of the Graph, own atoms first, then ghosts: copies of atoms of other processes, or images of own ones.
struct RowView {
  void *data;    // null on a process that failed, perhaps for want of memory: zeros go out, nothing comes in
  int64_t rows;
  int64_t width;
  int bytes;
};

// Every process makes the same calls in the same order, with the same width and bytes, also one without
// atoms. The widest row has `channels` numbers of the network's dtype (see Metadata), or 12 doubles if that
// is more.
class Exchange {
 public:
  virtual ~Exchange() = default;
  // Copies the rows of own atoms to their ghosts everywhere, in place.
  virtual void forward(const RowView &rows) = 0;
  // The transpose: adds the rows of ghosts to those of their atoms; ghost rows may hold anything afterwards.
  virtual void reverse_add(const RowView &rows) = 0;
  // Sums over processes, in place; the same bits on every process.
  virtual void sum(double *values, int64_t count) = 0;
};

}    // namespace orb_export
