#include <algorithm>
#include <filesystem>

#include "trainer/data/bin_format.hpp"
#include "trainer/data/file_row.hpp"
#include "trainer/data/token_source.hpp"

namespace pitcrew::trainer {
namespace {

namespace fs = std::filesystem;

class BinSource final : public TokenSource {
 public:
  BinSource(std::vector<DataFile> files, std::vector<uint32_t> token_bytes, uint64_t tokens, uint32_t vocabulary,
            std::string fingerprint)
      : files_(std::move(files)),
        token_bytes_(std::move(token_bytes)),
        tokens_(tokens),
        vocabulary_(vocabulary),
        fingerprint_(std::move(fingerprint)) {}

  uint64_t tokens() const override { return tokens_; }
  uint32_t vocabulary() const override { return vocabulary_; }
  const std::string& fingerprint() const override { return fingerprint_; }
  std::string describe() const override {
    return "token files, " + std::to_string(files_.size()) + (files_.size() == 1 ? " file, " : " files, ") +
           std::to_string(tokens_) + " tokens";
  }

  Status read(uint64_t first, std::span<int32_t> out) const override {
    PITCREW_INVARIANT(first + out.size() <= tokens_, "a read past the dataset's end");
    std::vector<std::byte> bytes;
    for (size_t index = file_of(files_, first); !out.empty(); ++index) {
      const DataFile& file = files_[index];
      const uint64_t offset = first - file.first;
      const uint64_t count = std::min<uint64_t>(out.size(), file.tokens - offset);
      bytes.resize(count * token_bytes_[index]);
      PITCREW_TRY(read_file_at(file.path, kBinHeaderBytes + offset * token_bytes_[index], bytes));
      Status decoded = decode_bin_tokens(bytes, token_bytes_[index], vocabulary_, offset, out.first(count));
      if (!decoded) return decoded.error().with_context(file.path);
      out = out.subspan(count);
      first += count;
    }
    return {};
  }

 private:
  const std::vector<DataFile> files_;
  const std::vector<uint32_t> token_bytes_;
  const uint64_t tokens_;
  const uint32_t vocabulary_;
  const std::string fingerprint_;
};

Result<std::vector<std::string>> find_files(const std::vector<std::string>& paths) {
  std::vector<std::string> found;
  for (const std::string& path : paths) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      found.push_back(path);
      continue;
    }
    std::vector<std::string> here;
    for (fs::directory_iterator walk(path, error), end; !error && walk != end; walk.increment(error)) {
      if (walk->path().extension() == ".bin") here.push_back(walk->path().string());
    }
    if (error) return errno_error("list " + path, error.value());
    std::sort(here.begin(), here.end());
    found.insert(found.end(), here.begin(), here.end());
  }
  if (found.empty()) return Error(Code::kNotFound, "data: there are no .bin files in what data.bin names");
  return found;
}

}  // namespace

Result<std::unique_ptr<TokenSource>> open_bin(const std::vector<std::string>& paths, uint32_t vocabulary) {
  PITCREW_ASSIGN(const std::vector<std::string> found, find_files(paths));
  std::vector<DataFile> files;
  std::vector<uint32_t> token_bytes;
  for (const std::string& path : found) {
    std::error_code error;
    const uint64_t bytes = fs::file_size(path, error);
    if (error) return errno_error("data: open " + path, error.value());
    std::vector<std::byte> start(std::min<uint64_t>(bytes, kBinHeaderBytes));
    PITCREW_TRY(read_file_at(path, 0, start));
    auto header = parse_bin_header(start, bytes);
    if (!header) return Error(header.error().code, "data: " + path + " " + header.error().message);
    if (header->tokens == 0) continue;
    files.push_back({path, fs::path(path).filename().string(), bytes, 0, header->tokens});
    token_bytes.push_back(header->token_bytes);
  }
  if (files.empty()) return Error(Code::kInvalidArgument, "data: the token files hold no tokens");
  const uint64_t tokens = number_tokens(files);
  PITCREW_ASSIGN(std::string fingerprint, fingerprint_of("bin", files));
  return std::unique_ptr<TokenSource>(std::make_unique<BinSource>(std::move(files), std::move(token_bytes), tokens,
                                                                  vocabulary, std::move(fingerprint)));
}

}  // namespace pitcrew::trainer
