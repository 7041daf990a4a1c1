#include <algorithm>
#include <cstring>
#include <filesystem>

#include "trainer/data/file_row.hpp"
#include "trainer/data/token_source.hpp"

namespace pitcrew::trainer {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kProbe = 8192;

class TextSource final : public TokenSource {
 public:
  TextSource(std::vector<DataFile> files, uint64_t tokens, std::string fingerprint)
      : files_(std::move(files)), tokens_(tokens), fingerprint_(std::move(fingerprint)) {}

  uint64_t tokens() const override { return tokens_; }
  uint32_t vocabulary() const override { return 256; }
  const std::string& fingerprint() const override { return fingerprint_; }
  std::string describe() const override {
    return "text, " + std::to_string(files_.size()) + (files_.size() == 1 ? " file, " : " files, ") +
           std::to_string(tokens_) + " bytes";
  }

  Status read(uint64_t first, std::span<int32_t> out) const override {
    PITCREW_INVARIANT(first + out.size() <= tokens_, "a read past the dataset's end");
    std::vector<std::byte> bytes;
    for (size_t index = file_of(files_, first); !out.empty(); ++index) {
      const DataFile& file = files_[index];
      const uint64_t offset = first - file.first;
      const uint64_t count = std::min<uint64_t>(out.size(), file.tokens - offset);
      const uint64_t from_file = std::min(count, file.bytes - offset);
      bytes.assign(count, std::byte{0});  // the zero behind the file's last byte
      PITCREW_TRY(read_file_at(file.path, offset, std::span(bytes).first(from_file)));
      std::transform(bytes.begin(), bytes.end(), out.begin(), [](std::byte b) { return static_cast<int32_t>(b); });
      out = out.subspan(count);
      first += count;
    }
    return {};
  }

 private:
  const std::vector<DataFile> files_;
  const uint64_t tokens_;
  const std::string fingerprint_;
};

bool contains(const std::vector<std::string>& list, const std::string& word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

Result<bool> looks_binary(const std::string& path, uint64_t bytes) {
  std::vector<std::byte> probe(std::min(bytes, kProbe));
  PITCREW_TRY(read_file_at(path, 0, probe));
  return std::find(probe.begin(), probe.end(), std::byte{0}) != probe.end();
}

bool wanted(const fs::directory_entry& entry, const TextSettings& settings) {
  const std::string name = entry.path().filename().string();
  if (name.starts_with(".") || contains(settings.exclude, name)) return false;
  if (settings.include.empty()) return true;
  return std::any_of(settings.include.begin(), settings.include.end(),
                     [&](const std::string& ending) { return name.ends_with(ending); });
}

Status add_folder(const std::string& folder, const TextSettings& settings, std::vector<DataFile>& files) {
  std::error_code error;
  fs::recursive_directory_iterator walk(folder, error), end;
  while (!error && walk != end) {
    const fs::directory_entry& entry = *walk;
    const std::string name = entry.path().filename().string();
    std::error_code ignored;
    if (entry.is_symlink(ignored)) {
      walk.disable_recursion_pending();
    } else if (entry.is_directory(ignored)) {
      if (name.starts_with(".") || contains(settings.exclude, name)) walk.disable_recursion_pending();
    } else if (entry.is_regular_file(ignored) && wanted(entry, settings)) {
      const uint64_t bytes = entry.file_size(ignored);
      if (bytes > 0 && bytes <= settings.max_file_bytes) {
        const std::string path = entry.path().string();
        PITCREW_ASSIGN(const bool binary, looks_binary(path, bytes));
        if (!binary) files.push_back({path, fs::path(path).lexically_relative(folder).string(), bytes, 0, bytes + 1});
      }
    }
    walk.increment(error);
  }
  if (error) return errno_error("list " + folder, error.value());
  return {};
}

}  // namespace

Result<std::unique_ptr<TokenSource>> open_text(const TextSettings& settings) {
  std::vector<DataFile> files;
  for (size_t i = 0; i < settings.paths.size(); ++i) {
    const std::string& path = settings.paths[i];
    std::vector<DataFile> here;
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (fs::is_directory(status)) {
      PITCREW_TRY(add_folder(path, settings, here));
    } else if (fs::is_regular_file(status)) {
      const uint64_t bytes = fs::file_size(path, error);
      PITCREW_ASSIGN(const bool binary, looks_binary(path, bytes));
      if (binary)
        return Error(Code::kInvalidArgument,
                     "data: " + path + " has zero bytes, so it is not text; name a text file, or use data.bin");
      here.push_back({path, fs::path(path).filename().string(), bytes, 0, bytes + 1});
    } else {
      return Error(Code::kNotFound, "data: there is no file or folder " + path);
    }
    std::sort(here.begin(), here.end(), [](const DataFile& a, const DataFile& b) { return a.name < b.name; });
    for (DataFile& file : here) {
      file.name = std::to_string(i) + "/" + file.name;
      files.push_back(std::move(file));
    }
  }
  if (files.empty())
    return Error(Code::kInvalidArgument,
                 "data: no text files are left of what data.text names; see include and exclude");
  const uint64_t tokens = number_tokens(files);
  PITCREW_ASSIGN(std::string fingerprint, fingerprint_of("text", files));
  return std::unique_ptr<TokenSource>(std::make_unique<TextSource>(std::move(files), tokens, std::move(fingerprint)));
}

}  // namespace pitcrew::trainer
