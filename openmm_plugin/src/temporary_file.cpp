#include "temporary_file.h"

#include <fcntl.h>
#include <stdlib.h>    // mkdtemp
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace orb_export::openmm {
namespace {

[[noreturn]] void fail(const std::filesystem::path &path) {
  throw std::runtime_error("cannot write " + path.string() + " (" + std::strerror(errno) +
                           "): set TMPDIR to a folder with space");
}

void write_all(const std::filesystem::path &path, const std::string &content) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) fail(path);
  for (size_t done = 0; done < content.size();) {
    const ssize_t written = write(file, content.data() + done, content.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      close(file);
      fail(path);
    }
    done += static_cast<size_t>(written);
  }
  if (close(file) != 0) fail(path);
}

std::filesystem::path folder_of_temporaries() {
  const char *const wish = std::getenv("TMPDIR");
  const std::filesystem::path folder = wish && *wish ? wish : "/tmp";
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored))
    throw std::runtime_error("TMPDIR is " + folder.string() + ", which is no folder");
  return folder;
}

}    // namespace

TemporaryFile::TemporaryFile(const std::string &name, const std::string &content) {
  std::string folder = folder_of_temporaries() / "orbv3-XXXXXX";
  if (!mkdtemp(folder.data())) fail(folder);    // 0700
  path_ = std::filesystem::path(folder) / name;
  try {
    write_all(path_, content);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove_all(path_.parent_path(), ignored);
    throw;
  }
}

TemporaryFile::~TemporaryFile() {
  std::error_code ignored;    // the folder of temporary files may have been swept
  std::filesystem::remove_all(path_.parent_path(), ignored);
}

}    // namespace orb_export::openmm
