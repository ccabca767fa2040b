// SPDX-License-Identifier: GPL-2.0-or-later
// pair_style orbv3/test MODE ...: pair_style orbv3 with an exchange that checks itself (MODE check) or makes
// one mistake, so that tests can be seen to fail; and any of its allocations can be made to fail
// (orbv3test_countdown). Built with the tests, never installed.
#include "backend.h"
#include "lammps_abi.h"
#include "pair_orbv3.h"
#include "pair_orbv3_impl.h"

#include "comm.h"
#include "error.h"

#include <orb_export/open_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <new>
#include <random>

// Allocations of this plugin's code within compute(), before one fails; negative: none does. Tests set it.
extern "C" {
__attribute__((visibility("default"))) long orbv3test_countdown = -1;
}

namespace {
bool computing = false;
}

// Linked so that only this plugin's code calls them (-Bsymbolic-functions).
void *operator new(std::size_t size)
{
  if (computing && orbv3test_countdown >= 0 && orbv3test_countdown-- == 0) throw std::bad_alloc();
  if (void *const memory = std::malloc(size ? size : 1)) return memory;
  throw std::bad_alloc();
}

void operator delete(void *memory) noexcept
{
  std::free(memory);
}

void operator delete(void *memory, std::size_t) noexcept
{
  std::free(memory);
}

namespace orbv3 {

// This plugin does not lie beside the runtime.
const orb_export::Runtime &backend()
{
  const char *const package = std::getenv("ORBV3_TEST_PACKAGE");
  return orb_export::open_runtime(package ? package : "", "the environment of the tests");
}

}    // namespace orbv3

using namespace LAMMPS_NS;

namespace {

using orb_export::RowView;

// Holds every pair of directions to <forward(x), y> = <x, reverse_add(y)>, in float64, and to moving the rows
// of atoms unchanged.
class CheckedExchange : public orbv3::RankExchange {
 public:
  using RankExchange::RankExchange;
  void forward(const RowView &rows) override
  {
    check(rows.rows, rows.width);
    RankExchange::forward(rows);
  }

  double worst = 0.0;    // relative
  int64_t checks = 0;

 private:
  void check(int64_t n, int64_t width)
  {
    std::vector<double> x(n * width, 0.0), y(n * width);
    for (int64_t k = 0; k < n_own * width; ++k)
      x[k] = normal_(random_);
    for (auto &value : y)
      value = normal_(random_);
    auto moved = x, gathered = y;
    RankExchange::forward({moved.data(), n, width, sizeof(double)});
    RankExchange::reverse_add({gathered.data(), n, width, sizeof(double)});
    double sums[3] = {};    // both sides, and the terms they are made of
    for (int64_t k = 0; k < n * width; ++k) {
      sums[0] += moved[k] * y[k];
      sums[2] += std::fabs(moved[k] * y[k]);
    }
    for (int64_t k = 0; k < n_own * width; ++k)
      sums[1] += x[k] * gathered[k];
    sum(sums, 3);
    worst = std::max(worst, std::fabs(sums[0] - sums[1]) / sums[2]);
    ++checks;
  }

  std::mt19937 random_{20};
  std::normal_distribution<double> normal_;
};

class WrongExchange : public orbv3::RankExchange {
 public:
  WrongExchange(LAMMPS *lmp, Pair *pair, orbv3::Halo &halo, std::string mistake) :
      RankExchange(lmp, pair, halo), mistake_(std::move(mistake))
  {
  }
  void forward(const RowView &rows) override
  {
    const int64_t row = (rows.rows - 1) * rows.width * rows.bytes;    // of the last ghost
    std::vector<char> before;
    if (mistake_ == "stale" && rows.rows > 0)
      before.assign(static_cast<char *>(rows.data) + row,
                    static_cast<char *>(rows.data) + row + rows.width * rows.bytes);
    RankExchange::forward(rows);
    std::copy(before.begin(), before.end(), static_cast<char *>(rows.data) + row);
  }
  void reverse_add(const RowView &rows) override
  {
    if (mistake_ == "sign") {
      if (rows.bytes != sizeof(double)) std::abort();
      auto *const values = static_cast<double *>(rows.data);
      for (int64_t k = n_own * rows.width; k < rows.rows * rows.width; ++k)
        values[k] = -values[k];
    }
    RankExchange::reverse_add(rows);
  }
  void forward_table(std::vector<double> &table, int columns, bool failed) override
  {
    RankExchange::forward_table(table, columns, failed);
    if (mistake_ == "limits")
      for (auto &value : table)
        value *= 0.9;
  }

 private:
  std::string mistake_;
};

class PairTest : public PairOrbV3 {
 public:
  using PairOrbV3::PairOrbV3;

  void settings(int narg, char **arg) override
  {
    mode_ = narg > 0 ? arg[0] : "";
    PairOrbV3::settings(narg - 1, arg + 1);
  }
  void compute(int eflag, int vflag) override
  {
    if (orbv3test_countdown >= 0) forget_buffers();
    computing = true;
    try {
      PairOrbV3::compute(eflag, vflag);
    } catch (...) {
      computing = false;
      throw;
    }
    computing = false;
  }
  void finish() override
  {
    PairOrbV3::finish();
    if (checked_ && comm->me == 0)
      utils::logmesg(lmp, fmt::format("adjoint identity: {} checks, worst {:.3e}\n",
                                      checked_->checks, checked_->worst));
  }

 private:
  // so that a step allocates as the first one does
  void forget_buffers()
  {
    impl->edges = std::make_unique<orbv3::EdgeBuilder>(impl->potential->metadata().cutoff,
                                                       impl->potential->metadata().max_neighbors);
    impl->halo = {};
    impl->rows = {};
    impl->ghosts = {};
    impl->limits_of_atoms = {};
    impl->numbers = {};
    impl->positions = {};
    impl->uncertainty.errors = {};
  }
  std::unique_ptr<orbv3::RankExchange> make_exchange() override
  {
    checked_ = nullptr;
    if (mode_ == "check") {
      auto exchange = std::make_unique<CheckedExchange>(lmp, this, impl->halo);
      checked_ = exchange.get();
      return exchange;
    }
    return std::make_unique<WrongExchange>(lmp, this, impl->halo, mode_);
  }
  std::string mode_;
  CheckedExchange *checked_ = nullptr;
};

void *create_pair(void *ptr)
{
  return new PairTest(static_cast<LAMMPS *>(ptr));
}

}    // namespace

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle,
                                                                         void *regfunc)
{
  lammpsplugin_t plugin{};
  plugin.version = ORBV3_LAMMPS_VERSION;
  plugin.style = "pair";
  plugin.name = "orbv3/test";
  plugin.info = "pair_style orbv3 that checks itself or is wrong";
  plugin.author = "the orb_export developers";
  plugin.creator.v1 = create_pair;
  plugin.handle = handle;
  reinterpret_cast<lammpsplugin_regfunc>(regfunc)(&plugin, lmp);
}
