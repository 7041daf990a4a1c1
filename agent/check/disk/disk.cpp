#include "agent/check/disk/disk.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/check/suite/suite.hpp"
#include "lib/base/random.hpp"

namespace pitcrew::check {
namespace {

using api::CheckOutcome;
using Steady = std::chrono::steady_clock;

constexpr size_t kBlock = 4 << 20;

// Also for O_DIRECT, which wants whole pages.
struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Block = std::unique_ptr<uint64_t[], Free>;

Block make_block() { return Block(static_cast<uint64_t*>(std::aligned_alloc(4096, kBlock))); }

void fill(uint64_t* words, uint64_t seed, uint64_t block) {
  for (size_t i = 0; i < kBlock / 8; ++i) words[i] = mix64(mix64(seed + block) ^ i);
}

std::string why(const std::string& what, const DiskSettings& settings) {
  return what + " a file in " + settings.folder + ": " + std::strerror(errno);
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// All of a block at its place; false with errno where it fails, or 0 where the file ends.
template <typename F>
bool whole(F call, int fd, void* data, off_t offset) {
  auto* bytes = static_cast<char*>(data);
  for (size_t done = 0; done < kBlock;) {
    const ssize_t got = call(fd, bytes + done, kBlock - done, offset + static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = EIO;
    if (got <= 0) return false;
    done += static_cast<size_t>(got);
  }
  return true;
}

}  // namespace

api::CheckTest check_disk(const DiskSettings& settings, const Expectations& expected) {
  api::CheckTest test{"disk", settings.folder, CheckOutcome::kPassed, "", 0, {}};
  const auto begin = Steady::now();
  const auto ends = [&](CheckOutcome outcome, const std::string& message) {
    test.outcome = outcome;
    test.message = message;
    test.seconds = std::chrono::duration<double>(Steady::now() - begin).count();
    return test;
  };
  struct statvfs space {};
  if (::statvfs(settings.folder.c_str(), &space) != 0) {
    return ends(CheckOutcome::kUnknown, "ask for the space of " + settings.folder + ": " + std::strerror(errno));
  }
  const uint64_t room = static_cast<uint64_t>(space.f_bavail) * space.f_frsize / 10;
  const uint64_t blocks = std::min(settings.bytes, room) / kBlock;
  if (blocks == 0) {
    return ends(CheckOutcome::kUnknown,
                settings.folder + " has less than " + std::to_string(10 * kBlock >> 20) + " MiB free");
  }
  const int flags = O_RDWR | O_TMPFILE | O_CLOEXEC;
  int opened = ::open(settings.folder.c_str(), flags | O_DIRECT, 0600);
  const bool direct = opened >= 0;
  if (!direct) opened = ::open(settings.folder.c_str(), flags, 0600);
  if (opened < 0) {
    return ends(errno == EROFS ? CheckOutcome::kFailed : CheckOutcome::kUnknown, why("make", settings));
  }
  const Descriptor file(opened);
  const Block expected_words = make_block(), words = make_block();
  const auto write_begin = Steady::now();
  double preparing = 0;
  for (uint64_t block = 0; block < blocks; ++block) {
    const auto fill_begin = Steady::now();
    fill(words.get(), settings.seed, block);
    preparing += std::chrono::duration<double>(Steady::now() - fill_begin).count();
    if (!whole(::pwrite, file.get(), words.get(), static_cast<off_t>(block * kBlock))) {
      return ends(errno == ENOSPC ? CheckOutcome::kUnknown : CheckOutcome::kFailed, why("write", settings));
    }
  }
  if (::fsync(file.get()) != 0) return ends(CheckOutcome::kFailed, why("make durable", settings));
  const double writing = std::chrono::duration<double>(Steady::now() - write_begin).count() - preparing;
  if (!direct) ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  double reading = 0;
  uint64_t wrong = 0;
  for (uint64_t block = 0; block < blocks; ++block) {
    const auto read_begin = Steady::now();
    if (!whole(::pread, file.get(), words.get(), static_cast<off_t>(block * kBlock))) {
      return ends(CheckOutcome::kFailed, why("read", settings));
    }
    reading += std::chrono::duration<double>(Steady::now() - read_begin).count();
    fill(expected_words.get(), settings.seed, block);
    for (size_t i = 0; i < kBlock / 8; ++i) wrong += words[i] != expected_words[i];
  }
  const double bytes = static_cast<double>(blocks * kBlock);
  reaches(test, "write", "GB/s", bytes / std::max(writing, 1e-9) / 1e9, expected.disk_bandwidth);
  // What came from memory says nothing about the disk.
  reaches(test, direct ? "read" : "read_cached", "GB/s", bytes / std::max(reading, 1e-9) / 1e9,
          direct ? expected.disk_bandwidth : std::nullopt);
  if (wrong > 0) {
    test.outcome = CheckOutcome::kFailed;
    test.message +=
        (test.message.empty() ? "" : "; ") + std::to_string(wrong) + " words of 8 bytes came back as others";
  }
  test.seconds = std::chrono::duration<double>(Steady::now() - begin).count();
  return test;
}

}  // namespace pitcrew::check
