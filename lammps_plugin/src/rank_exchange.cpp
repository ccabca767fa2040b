// SPDX-License-Identifier: GPL-2.0-or-later
#include "rank_exchange.h"

#include "comm.h"
#include "lammps.h"
#include "pair.h"
#include "platform.h"

#include <mpi.h>

#include <algorithm>

namespace orbv3 {

RankExchange::RankExchange(LAMMPS_NS::LAMMPS *lmp, LAMMPS_NS::Pair *pair, Halo &halo) :
    lmp_(lmp), pair_(pair), halo_(halo)
{
}

void RankExchange::communicate(Direction direction)
{
  const double start = MPI_Wtime(), processor = LAMMPS_NS::platform::cputime();
  const int doubles = halo_.doubles_per_atom();
  if (direction == Direction::forward)
    lmp_->comm->forward_comm(pair_, doubles);
  else
    lmp_->comm->reverse_comm(pair_, doubles);
  ++counters.exchanges;
  counters.exchange_seconds += MPI_Wtime() - start;
  counters.processor_seconds += LAMMPS_NS::platform::cputime() - processor;
}

void RankExchange::in_slices(const orb_export::RowView &rows, Direction direction)
{
  const int64_t columns = doubles_per_message * static_cast<int64_t>(sizeof(double)) / rows.bytes;
  for (int64_t begin = 0; begin < rows.width; begin += columns) {
    const auto end = std::min(begin + columns, rows.width);
    halo_.carry_rows(rows.data, rows.width, rows.bytes, begin, end);
    communicate(direction);
  }
}

void RankExchange::forward(const orb_export::RowView &rows)
{
  in_slices(rows, Direction::forward);
}

void RankExchange::reverse_add(const orb_export::RowView &rows)
{
  in_slices(rows, Direction::reverse);
}

void RankExchange::sum(double *values, int64_t count)
{
  const double start = MPI_Wtime(), processor = LAMMPS_NS::platform::cputime();
  MPI_Allreduce(MPI_IN_PLACE, values, static_cast<int>(count), MPI_DOUBLE, MPI_SUM, lmp_->world);
  ++counters.sums;
  counters.sum_seconds += MPI_Wtime() - start;
  counters.processor_seconds += LAMMPS_NS::platform::cputime() - processor;
}

void RankExchange::collect_marks(bool failed)
{
  halo_.carry_marks();
  if (failed) halo_.carry_nothing();
  communicate(Direction::reverse);
}

void RankExchange::forward_table(std::vector<double> &table, int columns, bool failed)
{
  halo_.carry_table(table.data(), columns);
  if (failed) halo_.carry_nothing();
  communicate(Direction::forward);
}

int place_on_machine(MPI_Comm world)
{
  MPI_Comm machine;
  int rank = 0, place = 0;
  MPI_Comm_rank(world, &rank);
  MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &machine);
  MPI_Comm_rank(machine, &place);
  MPI_Comm_free(&machine);
  return place;
}

}    // namespace orbv3
