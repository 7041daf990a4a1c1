#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lib/base/result.hpp"

namespace pitcrew::trainer {

// One long row of tokens behind some files, read at any place. Files stay where they are: memory is O(files). Reading
// is thread-safe.
class TokenSource {
 public:
  virtual ~TokenSource() = default;
  virtual uint64_t tokens() const = 0;
  // Token numbers are below this.
  virtual uint32_t vocabulary() const = 0;
  // Changes when the data do: names, sizes and content. 16 hexadecimal digits.
  virtual const std::string& fingerprint() const = 0;
  // "text, 214 files" for logs.
  virtual std::string describe() const = 0;
  // Tokens [first, first + out.size()). kDataLoss where a file is damaged or has changed; names it.
  virtual Status read(uint64_t first, std::span<int32_t> out) const = 0;
};

// Text as bytes, vocabulary 256. Files in the byte order of their paths, each followed by one zero byte.
struct TextSettings {
  std::vector<std::string> paths;    // files, and folders with all they contain
  std::vector<std::string> include;  // endings (".cpp"); empty: all
  std::vector<std::string> exclude;  // names of files and folders below `paths` that are left out
  uint64_t max_file_bytes = 64 << 20;
};
// Left out of folders: names that begin with a dot, symbolic links, empty files, files that look binary (a zero byte
// among the first 8,192), larger than max_file_bytes, or with another ending. A file named itself must be text. Errors:
// kNotFound, kInvalidArgument (nothing is left).
Result<std::unique_ptr<TokenSource>> open_text(const TextSettings& settings);

// llm.c's token files, version 1 (uint16) and 7 (uint32); `paths` are files, and folders whose *.bin are taken in order
// of their names. Token numbers must be below `vocabulary`, which is checked as they are read.
Result<std::unique_ptr<TokenSource>> open_bin(const std::vector<std::string>& paths, uint32_t vocabulary);

}  // namespace pitcrew::trainer
