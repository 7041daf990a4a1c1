#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "lib/base/file.hpp"
#include "lib/base/random.hpp"

namespace pitcrew::faults {

// A file system in memory that knows what was synced. After lose_power() it holds what a disk may hold then: of each
// file the bytes of its last sync, of each folder the entries of its last sync, and of everything else a part that
// `chance` picks: a rename may have come through without the bytes of what was renamed, a write by some of its pages
// only. Thread-safe.
class PowerLossFiles final : public FileSystem {
 public:
  PowerLossFiles();
  ~PowerLossFiles() override;

  // Keeps each unsynced change with the given probability; 0 is what POSIX promises and no more.
  void lose_power(double kept, uint64_t seed);
  // Flips one bit of a file, as it is now and on the disk.
  void flip(const std::string& path, uint64_t byte);

  Result<std::unique_ptr<File>> open(const std::string& path, Open how) override;
  Status make_folder(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status link(const std::string& from, const std::string& to) override;
  Result<std::vector<Entry>> list(const std::string& folder) override;
  Status remove(const std::string& path) override;
  Status remove_folder(const std::string& path) override;
  Status sync_folder(const std::string& folder) override;
  Result<uint64_t> free_bytes(const std::string& path) override;

 private:
  friend class PowerLossFile;
  struct Node;
  struct Tree;
  std::unique_ptr<Tree> tree_;
};

// Passes everything on and does something else at chosen operations. An operation is a point with a name: what is done
// and to what kind of file, "sync manifest.json.tmp". Thread-safe.
class FaultyFiles final : public FileSystem {
 public:
  // What to do instead of, or before, one operation.
  enum class Act { kPass, kFail, kHalf };  // kHalf: of a write, half of the bytes, and then the error
  using Judge = std::function<Act(uint64_t number, const std::string& point)>;

  explicit FaultyFiles(FileSystem& under) : under_(under) {}
  // Asked before each operation that changes something; numbers count from 0. Set while nothing is under way.
  void set_judge(Judge judge, Error error = Error(Code::kResourceExhausted, "No space left on device"));
  // The names of all operations since set_judge(), in order.
  std::vector<std::string> points() const;

  Result<std::unique_ptr<File>> open(const std::string& path, Open how) override;
  Status make_folder(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status link(const std::string& from, const std::string& to) override;
  Result<std::vector<Entry>> list(const std::string& folder) override { return under_.list(folder); }
  Status remove(const std::string& path) override;
  Status remove_folder(const std::string& path) override;
  Status sync_folder(const std::string& folder) override;
  Result<uint64_t> free_bytes(const std::string& path) override { return under_.free_bytes(path); }

 private:
  friend class FaultyFile;
  Act judge(std::string_view verb, const std::string& path);
  Status check(std::string_view verb, const std::string& path);

  FileSystem& under_;
  mutable std::mutex mutex_;
  Judge judge_;
  Error error_{Code::kInternal, ""};
  std::vector<std::string> points_;
};

// The kind of a file or folder, for the name of a point: numbers that vary are left out.
std::string kind_of(const std::string& path);

}  // namespace pitcrew::faults
