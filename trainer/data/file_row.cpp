#include "trainer/data/file_row.hpp"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include "lib/base/digest.hpp"

namespace pitcrew::trainer {
namespace {

constexpr uint64_t kWhole = 1 << 20;
constexpr uint64_t kBlocks = 16;
constexpr uint64_t kBlockBytes = 64 << 10;

}  // namespace

Status read_file_at(const std::string& path, uint64_t offset, std::span<std::byte> out) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno_error("open " + path, errno);
  Status done;
  while (!out.empty()) {
    const ssize_t got = pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      done = errno_error("read " + path, errno);
      break;
    }
    if (got == 0) {
      done =
          Error(Code::kDataLoss, path + " ends at byte " + std::to_string(offset) + ", " + std::to_string(out.size()) +
                                     " too early: it has changed since training began; restore it");
      break;
    }
    out = out.subspan(static_cast<size_t>(got));
    offset += static_cast<uint64_t>(got);
  }
  ::close(fd);
  return done;
}

uint64_t number_tokens(std::vector<DataFile>& files) {
  uint64_t first = 0;
  for (DataFile& file : files) {
    file.first = first;
    first += file.tokens;
  }
  return first;
}

size_t file_of(const std::vector<DataFile>& files, uint64_t token) {
  const auto after = std::upper_bound(files.begin(), files.end(), token,
                                      [](uint64_t t, const DataFile& file) { return t < file.first; });
  return static_cast<size_t>(after - files.begin()) - 1;
}

Result<std::string> fingerprint_of(const std::string& kind, const std::vector<DataFile>& files) {
  std::string text = kind;
  std::vector<std::byte> content;
  for (const DataFile& file : files) {
    text += "\n" + file.name + " " + std::to_string(file.bytes);
    if (file.bytes <= kWhole) {
      content.resize(file.bytes);
      PITCREW_TRY(read_file_at(file.path, 0, content));
    } else {
      content.resize(kBlocks * kBlockBytes);
      for (uint64_t block = 0; block < kBlocks; ++block) {
        const uint64_t offset = (file.bytes - kBlockBytes) / (kBlocks - 1) * block;
        PITCREW_TRY(read_file_at(file.path, offset, std::span(content).subspan(block * kBlockBytes, kBlockBytes)));
      }
    }
    text += " " + hex64(xxh3(content.data(), content.size()));
  }
  return hex64(xxh3(text));
}

}  // namespace pitcrew::trainer
