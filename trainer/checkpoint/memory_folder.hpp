#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/result.hpp"

namespace pitcrew::trainer {

// Host memory that a snapshot is copied into. Where it is backed by a file of PITCREW_MEMORY, the memory is the file.
// Unmaps, and removes a file that is still reserved, when it dies.
class SnapshotMemory {
 public:
  static Result<SnapshotMemory> anonymous(uint64_t bytes);
  // kResourceExhausted where the folder's file system has no room.
  static Result<SnapshotMemory> file(const std::string& path, uint64_t bytes);
  // The same, without its pages: take_pages() must have succeeded before it is written to.
  static Result<SnapshotMemory> file_without_pages(const std::string& path, uint64_t bytes);
  // Takes all pages, so that no copy waits for one. kResourceExhausted where the folder's file system has no room.
  Status take_pages();
  SnapshotMemory(SnapshotMemory&& other) noexcept;
  SnapshotMemory& operator=(SnapshotMemory&& other) noexcept;
  ~SnapshotMemory();

  std::byte* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }
  bool in_place() const { return path_ == reserved_; }  // not moved into a checkpoint
  const std::string& path() const { return path_; }
  // Gives the file another name; the memory stays.
  Status move_to(const std::string& path);
  Status move_back() { return move_to(reserved_); }

 private:
  static Result<SnapshotMemory> map_file(const std::string& path, uint64_t bytes, bool allocate);
  SnapshotMemory() = default;
  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
  std::string reserved_;
  std::string path_;
};

// PITCREW_MEMORY as the ranks of one replica see it; lib/base/launcher_socket.hpp tells its layout. Besides that,
// reserve/ holds the ranks' empty buffers. Everything in it lives in memory: nothing is synced.
class MemoryFolder {
 public:
  explicit MemoryFolder(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  std::string own(const std::string& checkpoint, const std::string& file) const;
  std::string reserve(uint32_t local_rank, size_t index) const;
  Result<uint64_t> free_bytes() const;

  Status prepare() const;  // makes the folders
  // <checkpoint> → its files, as paths below this folder: of own/ and of every peer/<slot>/.
  std::map<std::string, std::vector<std::string>> holdings() const;
  std::vector<std::string> own_checkpoints() const;
  Status make_checkpoint(const std::string& checkpoint) const;
  Status write_small(const std::string& relative, std::string_view content) const;
  Status mark_counted(const std::string& checkpoint) const;
  // Removes a checkpoint from own/ and counted/, or whatever is left of it.
  void remove_checkpoint(const std::string& checkpoint) const;
  // Removes this rank's buffers that an epoch before left behind.
  void remove_reserve(uint32_t local_rank) const;

 private:
  std::string path_;
};

}  // namespace pitcrew::trainer
