#include "result_cache.h"

namespace orb_export::openmm {

ResultCache::Entry *ResultCache::find(const Configuration &configuration) {
  for (size_t index : {latest_, 1 - latest_})
    if (entries_[index].valid && entries_[index].configuration == configuration) {
      latest_ = index;
      return &entries_[index];
    }
  return nullptr;
}

ResultCache::Entry &ResultCache::replace_older(const Configuration &configuration) {
  latest_ = 1 - latest_;
  auto &entry = entries_[latest_];
  entry.configuration = configuration;
  entry.valid = entry.wanted_forces = entry.trial = false;
  return entry;
}

}    // namespace orb_export::openmm
