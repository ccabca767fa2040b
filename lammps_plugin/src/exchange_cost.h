// SPDX-License-Identifier: GPL-2.0-or-later
// Which of the two exact ways to share edges between processes costs less.
#ifndef ORBV3_EXCHANGE_COST_H
#define ORBV3_EXCHANGE_COST_H

#include <orb_export/potential.h>

namespace orbv3 {

// Of one process on average.
struct Border {
  double ghosts = 0.0;    // atoms of other processes that edges of own atoms lead to
  double edges = 0.0;     // edges of own atoms that lead there
};

// Seconds per step that a scheme needs beyond what both need. Rates are rounded figures of one CPU core or
// one GPU and an ordinary network, not measured at run time: the choice, and with it the rounding of a
// trajectory, is the same on every run.
double seconds_of_reverse(const orb_export::Metadata &metadata, const Border &border);
double seconds_of_redundant(const orb_export::Metadata &metadata, const Border &border,
                            int threads);

}    // namespace orbv3

#endif
