// SPDX-License-Identifier: GPL-2.0-or-later
// Restart files of pair_style orbv3.
#include "pair_orbv3.h"

#include "elements.h"
#include "pair_orbv3_impl.h"

#include "atom.h"
#include "comm.h"
#include "error.h"

using namespace LAMMPS_NS;

namespace {
constexpr int RESTART_FORMAT = 5;

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
  put(fp, settings.program);
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
  settings.program = reader.text();
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

  int readable = platform::file_is_readable(path);
  MPI_Allreduce(MPI_IN_PLACE, &readable, 1, MPI_INT, MPI_MIN, world);
  if (!readable) {
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
