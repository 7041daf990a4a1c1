#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lib/base/result.hpp"

namespace pitcrew::trainer {

// A file that is part of a dataset, and where its tokens stand in the row of all.
struct DataFile {
  std::string path;
  std::string name;    // what the fingerprint knows it by: independent of where the dataset lies
  uint64_t bytes = 0;  // of the whole file
  uint64_t first = 0;  // number of its first token
  uint64_t tokens = 0;
};

// Bytes [offset, offset + out.size()) of a file. kDataLoss where it ends before.
Status read_file_at(const std::string& path, uint64_t offset, std::span<std::byte> out);

// Numbers `first` of each file from its `tokens`; returns the sum.
uint64_t number_tokens(std::vector<DataFile>& files);
// The file that holds token number `token`.
size_t file_of(const std::vector<DataFile>& files, uint64_t token);

// XXH3 over kind, names, sizes and content: of files up to 1 MiB all of it, of larger ones 16 blocks of 64 KiB spread
// evenly from their beginning to their end.
Result<std::string> fingerprint_of(const std::string& kind, const std::vector<DataFile>& files);

}  // namespace pitcrew::trainer
