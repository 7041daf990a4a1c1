// Saving and restoring against what the disk does by itself, in one run, alternating: one thread that writes and syncs,
// and one that reads, as many bytes. Digests are included. What begin() makes the training thread wait is shown apart.
//
//   checkpoint_bench [FOLDER [MiB [ROUNDS]]]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <thread>

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/file.hpp"
#include "lib/base/random.hpp"
#include "trainer/checkpoint/checkpointer.hpp"

namespace pitcrew::trainer {
namespace {

using Watch = std::chrono::steady_clock;

double seconds_since(Watch::time_point start) { return std::chrono::duration<double>(Watch::now() - start).count(); }

// Out of the page cache, so that reading is reading.
void forget(const std::string& path) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
    if (!entry.is_regular_file()) continue;
    const int fd = ::open(entry.path().c_str(), O_RDONLY);
    if (fd < 0) continue;
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ::close(fd);
  }
}

struct Rates {
  double raw_write = 0, write = 0, raw_read = 0, restore = 0, begin = 0;  // MB/s; begin in seconds
};

template <typename T>
T must(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().message.c_str());
    std::exit(1);
  }
  return *std::move(result);
}

void must(const Status& status) {
  if (status) return;
  std::fprintf(stderr, "%s\n", status.error().message.c_str());
  std::exit(1);
}

Rates measure(const std::string& folder, std::vector<std::byte>& state, uint64_t round) {
  FileSystem& files = posix_file_system();
  const double megabytes = static_cast<double>(state.size()) / 1e6;
  Rates rates;
  const std::string raw = folder + "/raw";
  auto start = Watch::now();
  {
    const auto file = must(files.open(raw, FileSystem::Open::kCreate));
    for (size_t at = 0; at < state.size(); at += 8 << 20) {
      must(file->write(std::span(state).subspan(at, std::min<size_t>(8 << 20, state.size() - at)), at));
    }
    must(file->sync());
  }
  rates.raw_write = megabytes / seconds_since(start);
  forget(folder);
  start = Watch::now();
  {
    const auto file = must(files.open(raw, FileSystem::Open::kRead));
    std::vector<std::byte> piece(8 << 20);
    for (size_t at = 0; at < state.size(); at += piece.size()) {
      must(file->read(std::span(piece).first(std::min(piece.size(), state.size() - at)), at));
    }
  }
  rates.raw_read = megabytes / seconds_since(start);
  must(files.remove(raw));

  // 64 tensors of equal size.
  std::vector<StateTensor> tensors;
  const size_t share = state.size() / 64;
  for (size_t t = 0; t < 64; ++t)
    tensors.push_back({"layer." + std::to_string(t), DType::kF32, {share / 4}, state.data() + t * share});
  RealClock clock;
  ThreadCopier copier;
  CheckpointerSettings settings{.job = {.uid = "bench"}, .epoch = EpochNumber(round)};
  settings.checkpoint.path = folder + "/checkpoints";
  settings.checkpoint.keep = 1;
  auto checkpointer = must(Checkpointer::open(settings, {.clock = &clock, .copier = &copier}, tensors, {}));
  forget(folder);
  start = Watch::now();
  const auto restored = must(checkpointer->restore({}));
  if (restored) rates.restore = megabytes / seconds_since(start);

  std::memcpy(state.data(), &round, sizeof round);
  start = Watch::now();
  checkpointer->begin(Step(round), Json::object(), {.durable = true});
  rates.begin = seconds_since(start);
  while (checkpointer->poll().empty()) std::this_thread::sleep_for(std::chrono::microseconds(200));
  rates.write = megabytes / seconds_since(start);
  must(checkpointer->finish(Step(round), Json::object()));
  return rates;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

int run(int count, char** arguments) {
  const std::string parent = count > 1 ? arguments[1] : std::filesystem::temp_directory_path().string();
  const size_t bytes = (count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 512) << 20;
  const uint64_t rounds = count > 3 ? std::strtoull(arguments[3], nullptr, 10) : 5;
  std::string name = parent + "/pitcrew-bench-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) {
    std::perror(name.c_str());
    return 1;
  }
  std::vector<std::byte> state(bytes);
  Random random(1);
  for (size_t at = 0; at + 8 <= bytes; at += 8) {
    const uint64_t word = random();
    std::memcpy(state.data() + at, &word, 8);
  }
  std::vector<double> raw_write, write, raw_read, restore, begin;
  for (uint64_t round = 1; round <= rounds + 1; ++round) {
    const Rates rates = measure(name, state, round);
    if (round == 1) continue;  // nothing to restore yet
    raw_write.push_back(rates.raw_write);
    write.push_back(rates.write);
    raw_read.push_back(rates.raw_read);
    restore.push_back(rates.restore);
    begin.push_back(rates.begin);
  }
  std::filesystem::remove_all(name);
  std::printf("state %zu MiB in %s, median of %llu rounds, one rank\n", bytes >> 20, parent.c_str(),
              static_cast<unsigned long long>(rounds));
  std::printf("save     %8.0f MB/s   disk alone %8.0f MB/s   ratio %.2f\n", median(write), median(raw_write),
              median(write) / median(raw_write));
  std::printf("restore  %8.0f MB/s   disk alone %8.0f MB/s   ratio %.2f\n", median(restore), median(raw_read),
              median(restore) / median(raw_read));
  std::printf("begin() held the training thread %.3f ms, worst %.3f ms\n", median(begin) * 1e3,
              *std::max_element(begin.begin(), begin.end()) * 1e3);
  return 0;
}

}  // namespace
}  // namespace pitcrew::trainer

int main(int count, char** arguments) { return pitcrew::trainer::run(count, arguments); }
