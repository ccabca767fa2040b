// SPDX-License-Identifier: GPL-2.0-or-later
// Messages of the halo with lists made by hand, as two processes would exchange them; and the choice of scheme.
#include "exchange_cost.h"
#include "halo.h"

#include "check.h"

#include <array>
#include <vector>

namespace {

// Own atoms 0 and 1; ghosts 2 and 3 are the other process's atoms 1 and 0.
struct Process {
  orbv3::Halo halo;
  std::array<int, 2> list = {1, 0};
  std::vector<double> message = std::vector<double>(64, -7.0);

  Process()
  {
    halo.start(4);
    halo.row = {0, 1, -1, -1};
  }
};

void collect_marks(Process &from, Process &to)
{
  from.halo.carry_marks();
  to.halo.carry_marks();
  CHECK(from.halo.pack_reverse(2, 2, from.message.data()) == 1);
  to.halo.unpack_reverse(2, to.list.data(), from.message.data());
}

// Each process needs what the test says; rows of ghosts in ascending order.
void mark(Process &a, Process &b)
{
  collect_marks(a, b);
  collect_marks(b, a);
  for (auto *process : {&a, &b}) {
    int64_t next = 2;
    for (int ghost = 2; ghost < 4; ++ghost)
      if (process->halo.needed[ghost]) process->halo.row[ghost] = next++;
  }
}

template <typename T> void rows_travel_both_ways(int64_t width, int64_t begin, int64_t end)
{
  Process a, b;
  a.halo.needed[3] = 1;    // the other's atom 0; nobody needs anything of a
  mark(a, b);
  CHECK(a.halo.row[2] == -1 && a.halo.row[3] == 2);
  std::vector<T> of_a(3 * width, T(0.5)), of_b(2 * width);
  for (std::size_t k = 0; k < of_b.size(); ++k)
    of_b[k] = static_cast<T>(k + 1);
  a.halo.carry_rows(of_a.data(), width, sizeof(T), begin, end);
  b.halo.carry_rows(of_b.data(), width, sizeof(T), begin, end);
  const int doubles = static_cast<int>(((end - begin) * sizeof(T) + 7) / 8);
  CHECK(b.halo.doubles_per_atom() == doubles);

  CHECK(b.halo.pack_forward(2, b.list.data(), b.message.data()) == doubles);
  a.halo.unpack_forward(2, 2, b.message.data());
  for (int64_t k = 0; k < width; ++k) {
    CHECK(of_a[2 * width + k] == (k >= begin && k < end ? of_b[k] : T(0.5)));
    CHECK(of_a[k] == T(0.5) && of_a[width + k] == T(0.5));
  }
  CHECK(a.halo.pack_forward(2, a.list.data(), a.message.data()) == 0);

  const auto before = of_b;
  CHECK(a.halo.pack_reverse(2, 2, a.message.data()) == doubles);
  b.halo.unpack_reverse(2, b.list.data(), a.message.data());
  for (int64_t k = 0; k < width; ++k) {
    CHECK(of_b[k] == before[k] + (k >= begin && k < end ? of_a[2 * width + k] : T(0)));
    CHECK(of_b[width + k] == before[width + k]);
  }
}

void tables_hold_all_ghosts()
{
  Process a, b;
  std::vector<double> of_a(8, 0.0), of_b = {1, 2, 3, 4, 0, 0, 0, 0};
  a.halo.carry_table(of_a.data(), 2);
  b.halo.carry_table(of_b.data(), 2);
  CHECK(b.halo.pack_forward(2, b.list.data(), b.message.data()) == 4);
  a.halo.unpack_forward(2, 2, b.message.data());
  CHECK((of_a == std::vector<double>{0, 0, 0, 0, 3, 4, 1, 2}));
}

// What a process behind this one needs goes through a ghost that no edge of this one leads to.
void needs_of_others_reach_the_owner_through_a_ghost()
{
  Process owner, between, behind;
  std::array<int, 1> ghost = {2};    // `between` sends its ghost on
  behind.halo.needed[2] = 1;
  behind.halo.carry_marks();
  behind.halo.pack_reverse(1, 2, behind.message.data());
  between.halo.carry_marks();
  between.halo.unpack_reverse(1, ghost.data(), behind.message.data());
  CHECK(between.halo.needed[2] && !between.halo.needed[3]);
  collect_marks(between, owner);
  CHECK(owner.halo.needed[1] && !owner.halo.needed[0]);
}

void a_new_step_forgets_what_was_needed()
{
  Process a, b;
  a.halo.needed[3] = 1;
  mark(a, b);
  b.halo.start(4);
  std::vector<double> rows(4);
  b.halo.carry_rows(rows.data(), 1, 8, 0, 1);
  CHECK(b.halo.pack_forward(2, b.list.data(), b.message.data()) == 0);
}

// Messages are as long as they can be, since what others need is perhaps not known here.
void a_process_that_failed_sends_zeros_and_takes_nothing()
{
  Process a, b;
  b.halo.start(0);    // what it would have marked was never allocated
  b.halo.carry_marks();
  b.halo.carry_nothing();
  CHECK(b.halo.pack_reverse(2, 2, b.message.data()) == 2);
  CHECK(b.message[0] == 0.0 && b.message[1] == 0.0 && b.message[2] == -7.0);
  b.halo.unpack_reverse(2, b.list.data(), a.message.data());
  b.halo.carry_rows(nullptr, 5, sizeof(float), 0, 5);
  CHECK(b.halo.pack_forward(2, b.list.data(), b.message.data()) == 6);
  b.halo.unpack_forward(2, 2, a.message.data());
  CHECK(b.message[5] == 0.0 && b.message[6] == -7.0);
  b.halo.start(4);
  b.halo.carry_marks();
  CHECK(b.halo.pack_reverse(2, 2, b.message.data()) == 1);    // well again
}

void the_cheaper_scheme_depends_on_the_device()
{
  orb_export::Metadata model;
  model.dtype = "float32";
  model.kind = "conservative";
  model.device = "cpu";
  model.channels = 256;
  model.hidden = 1024;
  model.layers = 5;
  const orbv3::Border border = {2000.0, 8000.0};
  CHECK(orbv3::seconds_of_reverse(model, border) < orbv3::seconds_of_redundant(model, border, 1));
  // a small network on a GPU waits for messages
  model.device = "cuda";
  model.hidden = 64;
  model.channels = 64;
  CHECK(orbv3::seconds_of_redundant(model, border, 1) < orbv3::seconds_of_reverse(model, border));
  // nothing to send costs messages in one scheme only
  CHECK(orbv3::seconds_of_redundant(model, {}, 1) < orbv3::seconds_of_reverse(model, {}));
}

}    // namespace

int main()
{
  rows_travel_both_ways<double>(3, 0, 3);
  rows_travel_both_ways<double>(5, 2, 4);
  rows_travel_both_ways<float>(4, 0, 4);
  rows_travel_both_ways<float>(7, 0, 7);    // an odd number of floats fills its last double
  rows_travel_both_ways<float>(7, 4, 7);
  tables_hold_all_ghosts();
  needs_of_others_reach_the_owner_through_a_ghost();
  a_new_step_forgets_what_was_needed();
  a_process_that_failed_sends_zeros_and_takes_nothing();
  the_cheaper_scheme_depends_on_the_device();
  return orb_export_test::failures() == 0 ? 0 : 1;
}
