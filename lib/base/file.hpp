#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lib/base/result.hpp"

namespace pitcrew {

// An open file. Offsets are explicit, so threads may use one file at once. Closed by the destructor.
class File {
 public:
  virtual ~File() = default;
  // Writes all of it, or says why not (kResourceExhausted: no space, or over a limit).
  virtual Status write(std::span<const std::byte> data, uint64_t offset) = 0;
  // Fills `data`; fewer bytes than that are an error (kDataLoss: the file ends before).
  virtual Status read(std::span<std::byte> data, uint64_t offset) const = 0;
  virtual Result<uint64_t> size() const = 0;
  // On return the bytes survive a power loss. That the file is found again needs sync_folder() of its folder.
  virtual Status sync() = 0;
};

// The file operations that durable state is built on: the one seam between checkpoints and disks. Tests put in its
// place one that fails, is killed, or loses what was not synced. Thread-safe. Messages name the path.
class FileSystem {
 public:
  enum class Open {
    kRead,
    kCreate,  // for reading and writing; made if absent, emptied if not
    kUpdate,  // for reading and writing; must exist
  };
  struct Entry {
    std::string name;
    bool folder = false;
    uint64_t size = 0;  // of a file
  };

  virtual ~FileSystem() = default;
  virtual Result<std::unique_ptr<File>> open(const std::string& path, Open how) = 0;
  // One folder; fine where it is there already.
  virtual Status make_folder(const std::string& path) = 0;
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  // A second name for a file; kAlreadyExists where `to` is taken: of several who try, one succeeds.
  virtual Status link(const std::string& from, const std::string& to) = 0;
  // By name, sorted; kNotFound where the folder is absent. An entry that goes away meanwhile is left out.
  virtual Result<std::vector<Entry>> list(const std::string& folder) = 0;
  virtual Status remove(const std::string& path) = 0;         // a file
  virtual Status remove_folder(const std::string& path) = 0;  // an empty folder
  // On return the folder's entries survive a power loss: what was made, renamed and removed in it.
  virtual Status sync_folder(const std::string& folder) = 0;
  virtual Result<uint64_t> free_bytes(const std::string& path) = 0;
};

// The machine's file system.
FileSystem& posix_file_system();

// The whole of a file of at most `limit` bytes.
Result<std::string> read_file(FileSystem& files, const std::string& path, uint64_t limit);

// Makes the folder and those above it that are absent, each durably.
Status make_folders(FileSystem& files, const std::string& path);

// Puts `content` in place of what is at `path`, whole or not at all, durably: `path`.tmp is written, synced and
// renamed, and the folder is synced.
Status replace_file(FileSystem& files, const std::string& path, std::string_view content);

// "a/b" and "c" → "a/b/c"; the folder of "a/b/c" is "a/b", of "c" ".".
std::string join_path(std::string_view folder, std::string_view name);
std::string folder_of(std::string_view path);

}  // namespace pitcrew
