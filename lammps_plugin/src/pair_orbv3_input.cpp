// SPDX-License-Identifier: GPL-2.0-or-later
// The user's side of pair_style orbv3: pair_style, pair_coeff and restart files.
#include "pair_orbv3.h"

#include "backend.h"
#include "elements.h"
#include "pair_orbv3_impl.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "memory.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <filesystem>

using namespace LAMMPS_NS;

namespace {
constexpr int RESTART_FORMAT = 4;
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

// Fixed-size pieces of a restart file: written by rank 0, read by rank 0 and passed on.
template <typename T> void put(FILE *fp, const T &value)
{
  fwrite(&value, sizeof(T), 1, fp);
}

void put(FILE *fp, const std::string &text)
{
  put(fp, static_cast<int>(text.size()));
  fwrite(text.data(), 1, text.size(), fp);
}

class RestartReader {
 public:
  RestartReader(FILE *fp, int me, MPI_Comm world, Error *error) :
      fp_(fp), me_(me), world_(world), error_(error)
  {
  }
  void bytes(void *data, int n)
  {
    if (me_ == 0) utils::sfread(FLERR, data, 1, n, fp_, nullptr, error_);
    MPI_Bcast(data, n, MPI_BYTE, 0, world_);
  }
  template <typename T> T value()
  {
    T result;
    bytes(&result, sizeof(T));
    return result;
  }
  std::string text()
  {
    std::string result(value<int>(), '\0');
    bytes(result.data(), static_cast<int>(result.size()));
    return result;
  }
  std::optional<double> optional_value()
  {
    const int given = value<int>();
    const auto number = value<double>();
    return given ? std::optional<double>(number) : std::nullopt;
  }

 private:
  FILE *fp_;
  int me_;
  MPI_Comm world_;
  Error *error_;
};

void put(FILE *fp, const std::optional<double> &value)
{
  put(fp, static_cast<int>(value.has_value()));
  put(fp, value.value_or(0.0));
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
  const auto known = {"device", "skin",     "charge", "spin",        "threads",
                      "memory", "exchange", "timing", "uncertainty", "deviation"};
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

  const auto path = utils::get_potential_file_path(arg[2]);
  if (path.empty())
    error->all(FLERR,
               std::string("Cannot open model file ") + arg[2] + ": " + utils::getsyserror());
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

void PairOrbV3::open_model(const std::string &path)
{
  forget_model();
  // torch brings an OpenMP of its own, which knows nothing of the thread number that LAMMPS was given
  auto &settings = impl->settings;
  impl->threads = settings.threads;
  if (!impl->threads && comm->nthreads > 1) impl->threads = comm->nthreads;
  // each rank would take all cores
  if (!impl->threads && comm->nprocs > 1) impl->threads = 1;

  try {
    impl->path = std::filesystem::absolute(path).string();
    orb_export::Options options;
    options.device = settings.device;
    options.threads = impl->threads;
    options.memory_limit = std::llround(BYTES_PER_GB * settings.memory);
    impl->potential = orbv3::backend().load(impl->path, options);
  } catch (const std::exception &exception) {
    impl->failure = exception.what();
  }
  stop_if_failed();

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

/* ---------------------------------------------------------------------- */

void PairOrbV3::write_restart_settings(FILE *fp)
{
  const auto &settings = impl->settings;
  put(fp, RESTART_FORMAT);
  put(fp, settings.device);
  put(fp, settings.skin);
  put(fp, settings.charge);
  put(fp, settings.spin);
  put(fp, settings.threads);
  put(fp, settings.memory);
  put(fp, settings.exchange);
  put(fp, static_cast<int>(settings.timing));
  const auto &rules = impl->uncertainty.rules();
  put(fp, static_cast<int>(rules.size()));
  for (const auto &rule : rules) {
    put(fp, rule.threshold);
    put(fp, rule.action);
    put(fp, rule.file);
  }
}

void PairOrbV3::read_restart_settings(FILE *fp)
{
  RestartReader reader(fp, comm->me, world, error);
  const int format = reader.value<int>();
  if (format != RESTART_FORMAT)
    error->all(FLERR,
               fmt::format("Restart data of pair style orbv3 have format {} but this version reads "
                           "{}",
                           format, RESTART_FORMAT));
  auto &settings = impl->settings;
  settings.device = reader.text();
  settings.skin = reader.optional_value();
  settings.charge = reader.optional_value();
  settings.spin = reader.optional_value();
  settings.threads = reader.value<int>();
  settings.memory = reader.value<double>();
  settings.exchange = reader.text();
  settings.timing = reader.value<int>() != 0;
  std::vector<orbv3::Uncertainty::Rule> rules(reader.value<int>());
  for (auto &rule : rules) {
    rule.threshold = reader.value<double>();
    rule.action = reader.value<orbv3::Uncertainty::Action>();
    rule.file = reader.text();
  }
  impl->uncertainty.restore_rules(std::move(rules));
}

void PairOrbV3::write_restart(FILE *fp)
{
  write_restart_settings(fp);
  put(fp, impl->path);
  put(fp, impl->potential ? impl->potential->metadata().file_sha256 : std::string());
  for (int type = 1; type <= atom->ntypes; type++)
    put(fp, impl->potential ? impl->number_of_type[type] : 0);
}

// A restart file may be read where the model is not, or is another one: then pair_coeff must name it.
void PairOrbV3::read_restart(FILE *fp)
{
  read_restart_settings(fp);
  RestartReader reader(fp, comm->me, world, error);
  const auto path = reader.text();
  impl->restart_sha256 = reader.text();
  std::vector<std::string> symbols;
  for (int type = 1; type <= atom->ntypes; type++) {
    const int number = reader.value<int>();
    symbols.push_back(number ? orbv3::symbol_of(number) : "NULL");
  }
  allocate();
  if (impl->restart_sha256.empty()) return;

  if (!platform::file_is_readable(path)) {
    error->warning(FLERR, "The model of the restart file is not at " + path +
                              ": pair_coeff must name it again");
    return;
  }
  open_model(path);
  const auto &found = impl->potential->metadata().file_sha256;
  if (found != impl->restart_sha256) {
    error->warning(FLERR, "The model at " + path + " is not that of the restart file (SHA-256 " +
                              found + ", not " + impl->restart_sha256 +
                              "): pair_coeff must name one");
    forget_model();
    return;
  }
  map_types(symbols);
}
