// A file that only this user can read, in a folder of its own; removed with the object.
#pragma once

#include <filesystem>
#include <string>

namespace orb_export::openmm {

class TemporaryFile {
 public:
  // Throws std::runtime_error naming the folder of temporary files.
  TemporaryFile(const std::string &name, const std::string &content);
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile &) = delete;
  TemporaryFile &operator=(const TemporaryFile &) = delete;
  const std::filesystem::path &path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}    // namespace orb_export::openmm
