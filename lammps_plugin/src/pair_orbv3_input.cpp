// SPDX-License-Identifier: GPL-2.0-or-later
// The user's side of pair_style orbv3: pair_style and pair_coeff.
#include "pair_orbv3.h"

#include "backend.h"
#include "elements.h"
#include "pair_orbv3_impl.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "memory.h"
#include "universe.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>

using namespace LAMMPS_NS;

namespace {
constexpr double BYTES_PER_GB = 1e9;
constexpr double MAX_MEMORY = 1e6;    // GB

bool is_device(const std::string &text)
{
  if (text == "auto" || text == "cpu" || text == "cuda") return true;
  const std::string prefix = "cuda:";
  return text.size() > prefix.size() && text.compare(0, prefix.size(), prefix) == 0 &&
         std::all_of(text.begin() + prefix.size(), text.end(), [](unsigned char c) {
           return std::isdigit(c);
         });
}
}    // namespace

/* ---------------------------------------------------------------------- */

void PairOrbV3::settings(int narg, char **arg)
{
  forget_model();    // it was opened under other settings
  impl->settings = Impl::Settings();
  impl->uncertainty.forget_rules();
  impl->ensemble.forget();
  for (int k = 0; k < narg;)
    k += read_setting(narg - k, arg + k);
}

// One keyword with its values; returns the number of words.
int PairOrbV3::read_setting(int narg, char **arg)
{
  const std::string keyword = arg[0];
  const auto known = {"device",   "skin",    "charge", "spin",        "threads",  "memory",
                      "exchange", "program", "timing", "uncertainty", "deviation"};
  if (std::find(known.begin(), known.end(), keyword) == known.end())
    error->all(FLERR, "Unknown pair_style orbv3 keyword: " + keyword);
  if (keyword == "deviation") return 1 + impl->ensemble.read_setting(narg - 1, arg + 1);
  if (keyword == "uncertainty") return 1 + impl->uncertainty.add_rule(narg - 1, arg + 1);

  if (narg < 2) utils::missing_cmd_args(FLERR, "pair_style orbv3 " + keyword, error);
  auto &settings = impl->settings;
  const char *const value = arg[1];
  if (keyword == "device") {
    if (!is_device(value))
      error->all(FLERR, std::string("Pair style orbv3 device is ") + value +
                            " but must be auto, cpu, cuda or cuda:N");
    settings.device = value;
  } else if (keyword == "skin") {
    settings.skin = utils::numeric(FLERR, value, false, lmp);
  } else if (keyword == "charge") {
    settings.charge = utils::numeric(FLERR, value, false, lmp);
  } else if (keyword == "spin") {
    settings.spin = utils::numeric(FLERR, value, false, lmp);
    if (!(*settings.spin >= 1.0))
      error->all(FLERR, std::string("Pair style orbv3 spin is ") + value +
                            " but must be at least 1, a multiplicity");
  } else if (keyword == "memory") {
    settings.memory = utils::numeric(FLERR, value, false, lmp);
    if (!(settings.memory >= 0.0 && settings.memory <= MAX_MEMORY))
      error->all(FLERR, fmt::format("Pair style orbv3 memory is {} GB but must be from 0 (no "
                                    "limit) to {:g}",
                                    value, MAX_MEMORY));
  } else if (keyword == "exchange") {
    settings.exchange = value;
    const auto schemes = {"auto", "reverse", "redundant"};
    if (std::find(schemes.begin(), schemes.end(), settings.exchange) == schemes.end())
      error->all(FLERR, std::string("Pair style orbv3 exchange is ") + value +
                            " but must be auto, reverse or redundant");
  } else if (keyword == "program") {
    settings.program = value;
    const auto programs = {"auto", "whole", "steps"};
    if (std::find(programs.begin(), programs.end(), settings.program) == programs.end())
      error->all(FLERR, std::string("Pair style orbv3 program is ") + value +
                            " but must be auto, whole or steps");
  } else if (keyword == "timing") {
    settings.timing = utils::logical(FLERR, value, false, lmp);
  } else {
    settings.threads = utils::inumeric(FLERR, value, false, lmp);
    if (settings.threads < 0)
      error->all(FLERR,
                 std::string("Pair style orbv3 threads is ") + value + " but must not be negative");
  }
  return 2;
}

void PairOrbV3::coeff(int narg, char **arg)
{
  if (narg < 3) utils::missing_cmd_args(FLERR, "pair_coeff * * FILE with pair_style orbv3", error);
  const int given = narg - 3;
  if (given != atom->ntypes)
    error->all(FLERR,
               fmt::format("pair_coeff of style orbv3 needs one element (or NULL) for each of "
                           "the {} atom types, but {} are given",
                           atom->ntypes, given));

  const auto path = find_model(arg[2]);
  const std::vector<std::string> symbols(arg + 3, arg + narg);
  open_ensemble(symbols);
  open_model(path);
  map_types(symbols);

  const auto &meta = impl->potential->metadata();
  if (!impl->restart_sha256.empty() && impl->restart_sha256 != meta.file_sha256)
    error->warning(FLERR, "The restart file was written with another model than " + impl->path +
                              " (SHA-256 " + impl->restart_sha256 + ", not " + meta.file_sha256 +
                              ")");
  if (comm->me == 0)
    utils::logmesg(lmp, fmt::format("orbv3 model {} ({}, {}, {}): cutoff {} Angstrom, at most {} "
                                    "neighbors per atom\n",
                                    meta.model, meta.kind, meta.dtype, meta.device, meta.cutoff,
                                    meta.max_neighbors));
}

void PairOrbV3::allocate()
{
  if (allocated) return;
  allocated = 1;
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  for (int i = 1; i < n; i++)
    std::fill_n(&setflag[i][1], n - 1, 0);
}

void PairOrbV3::forget_model()
{
  impl->potential.reset();
  impl->edges.reset();
  impl->number_of_type.clear();
  if (allocated)
    for (int i = 1; i <= atom->ntypes; i++)
      std::fill_n(&setflag[i][1], atom->ntypes, 0);
}

// Some ranks may not see the file.
std::string PairOrbV3::find_model(const std::string &name)
{
  const auto path = utils::get_potential_file_path(name);
  if (path.empty())
    impl->failure.set("cannot open model file " + name + ": " + utils::getsyserror());
  stop_if_failed();
  return path;
}

void PairOrbV3::open_model(const std::string &path)
{
  forget_model();
  // torch brings an OpenMP of its own, which knows nothing of the thread number that LAMMPS was given
  auto &settings = impl->settings;
  impl->threads = settings.threads;
  if (!impl->threads && comm->nthreads > 1) impl->threads = comm->nthreads;
  // each process would take all cores
  if (!impl->threads && universe->nprocs > 1) impl->threads = 1;
  // where nobody said how many, LAMMPS has told OpenMP, and so perhaps torch, that it is one
  if (!impl->threads && !std::getenv("OMP_NUM_THREADS"))
    impl->threads = static_cast<int>(orbv3::available_cores());

  const int place_on_machine =
      orbv3::place_on_machine(world) + universe->root_proc[universe->iworld];
  impl->failure.guard([&] {
    impl->path = std::filesystem::absolute(path).string();
    orb_export::Options options;
    options.device = settings.device;
    // cuda:N is that one for all ranks
    if (settings.device == "auto" || settings.device == "cuda")
      options.device += "/" + std::to_string(place_on_machine);
    options.threads = impl->threads;
    options.memory_limit = std::llround(BYTES_PER_GB * settings.memory);
    options.program = settings.program;
    impl->potential = orbv3::backend().load(impl->path, options);
  });
  stop_if_failed();
  check_same_file();

  const auto &meta = impl->potential->metadata();
  impl->edges = std::make_unique<orbv3::EdgeBuilder>(meta.cutoff, meta.max_neighbors);
  const bool given = settings.charge || settings.spin;
  if (meta.has_charge_spin && !(settings.charge && settings.spin))
    error->all(
        FLERR,
        "Model " + meta.model +
            " depends on the total charge and the spin multiplicity: give pair_style orbv3 both, "
            "charge Q and spin S");
  if (!meta.has_charge_spin && given)
    error->all(FLERR,
               "Model " + meta.model +
                   " does not depend on charge or spin, but pair_style orbv3 gives one of them");
}

void PairOrbV3::map_types(const std::vector<std::string> &symbols)
{
  const auto &meta = impl->potential->metadata();
  auto &numbers = impl->number_of_type;
  numbers.assign(1, 0);
  for (const auto &symbol : symbols) {
    const int number = orbv3::atomic_number(symbol);
    const auto &elements = meta.elements;
    if (symbol != "NULL" && (!number || !std::count(elements.begin(), elements.end(), number))) {
      const auto names = orbv3::symbols_of(elements);
      forget_model();
      error->all(FLERR, (number ? "Model has no element " : "There is no element ") + symbol +
                            "; the model knows " + names);
    }
    numbers.push_back(number);
  }
  allocate();
  for (int i = 1; i <= atom->ntypes; i++)
    for (int j = 1; j <= atom->ntypes; j++)
      setflag[i][j] = numbers[i] && numbers[j];
  if (std::none_of(numbers.begin(), numbers.end(), [](int number) {
        return number != 0;
      }))
    error->all(FLERR, "pair_coeff of style orbv3 maps every atom type to NULL");
}
