#include <atomic>

#include <unistd.h>

#include "trainer/checkpoint/name.hpp"
#include "trainer/checkpoint/s3/library.hpp"
#include "trainer/checkpoint/storage.hpp"

namespace pitcrew::trainer {
namespace {

constexpr std::string_view kTemporary = ".tmp";

class FileUpload final : public Storage::Upload {
 public:
  FileUpload(FileSystem& files, std::unique_ptr<File> file, std::string folder)
      : files_(files), file_(std::move(file)), folder_(std::move(folder)) {}
  Status append(std::span<const std::byte> data) override {
    PITCREW_TRY(file_->write(data, at_));
    at_ += data.size();
    return {};
  }
  Status finish() override {
    PITCREW_TRY(file_->sync());
    return files_.sync_folder(folder_);
  }

 private:
  FileSystem& files_;
  std::unique_ptr<File> file_;
  const std::string folder_;
  uint64_t at_ = 0;
};

class FileStorage final : public Storage {
 public:
  FileStorage(FileSystem& files, std::string path) : files_(files), path_(std::move(path)) {}

  const std::string& path() const override { return path_; }

  Result<std::unique_ptr<Upload>> write(const std::string& name) override {
    const std::string file = join_path(path_, name);
    PITCREW_TRY(make_folder_of(file));
    PITCREW_ASSIGN(auto opened, files_.open(file, FileSystem::Open::kCreate));
    return std::unique_ptr<Upload>(new FileUpload(files_, std::move(opened), folder_of(file)));
  }

  Status replace(const std::string& name, std::string_view content) override {
    const std::string file = join_path(path_, name);
    PITCREW_TRY(make_folder_of(file));
    return replace_file(files_, file, content);
  }

  Status create(const std::string& name, std::string_view content) override {
    const std::string file = join_path(path_, name);
    PITCREW_TRY(make_folder_of(file));
    static std::atomic<uint64_t> counter{0};
    const std::string temporary =
        file + "." + std::to_string(::getpid()) + "-" + std::to_string(++counter) + std::string(kTemporary);
    {
      PITCREW_ASSIGN(const auto opened, files_.open(temporary, FileSystem::Open::kCreate));
      PITCREW_TRY(opened->write(std::as_bytes(std::span(content)), 0));
      PITCREW_TRY(opened->sync());
    }
    const Status linked = files_.link(temporary, file);
    if (const Status removed = files_.remove(temporary); !removed && linked && removed.error().code != Code::kNotFound)
      return removed;
    PITCREW_TRY(linked);
    return files_.sync_folder(folder_of(file));
  }

  Result<std::vector<Entry>> list(const std::string& folder) override {
    const auto entries = files_.list(folder.empty() ? path_ : join_path(path_, folder));
    if (!entries && entries.error().code == Code::kNotFound) return std::vector<Entry>{};
    if (!entries) return entries.error();
    std::vector<Entry> found;
    for (const auto& entry : *entries) {
      if (!entry.name.ends_with(kTemporary)) found.push_back({entry.name, entry.folder, entry.size});
    }
    return found;
  }

  Result<std::unique_ptr<File>> open(const std::string& name) override {
    return files_.open(join_path(path_, name), FileSystem::Open::kRead);
  }

  Result<std::string> read(const std::string& name, uint64_t limit) override {
    return read_file(files_, join_path(path_, name), limit);
  }

  Status remove(const std::string& name) override {
    const std::string file = join_path(path_, name);
    const Status removed = files_.remove(file);
    if (!removed && removed.error().code == Code::kNotFound) return {};
    PITCREW_TRY(removed);
    return files_.sync_folder(folder_of(file));
  }

  Status remove_folder(const std::string& name) override {
    const std::string folder = join_path(path_, name);
    const auto entries = files_.list(folder);
    if (!entries && entries.error().code == Code::kNotFound) return {};
    if (!entries) return entries.error();
    // Without its manifest it is no checkpoint any more, so a crash further down leaves none that lacks a part.
    PITCREW_TRY(remove(join_path(name, kManifestFile)));
    for (const auto& entry : *entries) {
      if (entry.name == kManifestFile) continue;
      const std::string inner = join_path(folder, entry.name);
      const Status removed = entry.folder ? remove_folder(join_path(name, entry.name)) : files_.remove(inner);
      if (!removed && removed.error().code != Code::kNotFound) return removed;
    }
    const Status removed = files_.remove_folder(folder);
    if (!removed && removed.error().code != Code::kNotFound) return removed;
    return files_.sync_folder(path_);
  }

 private:
  Status make_folder_of(const std::string& file) {
    const std::string folder = folder_of(file);
    PITCREW_TRY(files_.make_folder(folder));
    return files_.sync_folder(folder_of(folder));
  }

  FileSystem& files_;
  const std::string path_;
};

}  // namespace

bool is_object_storage(const std::string& path) { return path.starts_with("s3://"); }

Result<std::unique_ptr<Storage>> open_storage(FileSystem& files, const std::string& path) {
  if (is_object_storage(path)) return s3::open(path);
  if (path.find("://") != std::string::npos) {
    return Error(Code::kUnsupported, "checkpoint path " + path +
                                         ": unknown scheme; give a folder of a file system that all replicas mount, "
                                         "or s3://bucket/prefix");
  }
  if (const Status made = make_folders(files, path); !made)
    return made.error().with_context("prepare the checkpoint path");
  return std::unique_ptr<Storage>(new FileStorage(files, path));
}

}  // namespace pitcrew::trainer
