// SPDX-License-Identifier: GPL-2.0-or-later
// The exchange between the layers of the model over LAMMPS's own communication of ghost atoms.
#ifndef ORBV3_RANK_EXCHANGE_H
#define ORBV3_RANK_EXCHANGE_H

#include "halo.h"

#include <orb_export/exchange.h>

#include <mpi.h>

#include <vector>

namespace LAMMPS_NS {
class LAMMPS;
class Pair;
}    // namespace LAMMPS_NS

namespace orbv3 {

class RankExchange : public orb_export::Exchange {
 public:
  // The pack and unpack functions of `pair` must be those of `halo`.
  RankExchange(LAMMPS_NS::LAMMPS *lmp, LAMMPS_NS::Pair *pair, Halo &halo);

  void forward(const orb_export::RowView &rows) override;
  void reverse_add(const orb_export::RowView &rows) override;
  void sum(double *values, int64_t count) override;

  // A process that has failed takes part with nothing of its own.
  void collect_marks(bool failed);    // Halo::needed, of all processes
  // (own + ghosts, columns)
  virtual void forward_table(std::vector<double> &table, int columns, bool failed);

  // Doubles that one atom may take of a message; wider rows go in several messages. LAMMPS sizes its buffers
  // by it when a run starts.
  int doubles_per_message = 1;

  int64_t n_own = 0;    // rows of own atoms

  struct Counters {
    int64_t exchanges = 0, sums = 0;
    double bytes = 0.0;    // that this process sent or copied
    double exchange_seconds = 0.0, sum_seconds = 0.0;
    double processor_seconds = 0.0;    // of exchanges and sums, in which MPI waits busily
    double packing_seconds = 0.0;      // of the exchanges; the rest is the network's, and waiting
  } counters;

 private:
  enum class Direction { forward, reverse };
  void communicate(Direction direction);
  void in_slices(const orb_export::RowView &rows, Direction direction);

  LAMMPS_NS::LAMMPS *const lmp_;    // whose Comm and communicator may change between steps
  LAMMPS_NS::Pair *const pair_;
  Halo &halo_;
};

// Number of this process among those of a communicator on the same machine, from 0. Collective.
int place_on_machine(MPI_Comm world);

}    // namespace orbv3

#endif
