// What people's commands ask of a checkpoint folder: list, verify, load.
#include <algorithm>
#include <cstring>

#include "lib/base/file.hpp"
#include "trainer/checkpoint/catalogue.hpp"
#include "trainer/checkpoint/checkpointer.hpp"

namespace pitcrew::trainer {
namespace {

constexpr uint64_t kPieceChunks = 16;

CheckpointSummary summarize(const FoundCheckpoint& found) {
  CheckpointSummary summary{.name = found.folder, .step = found.name.step, .claim = found.name.claim};
  if (found.manifest) summary.bytes = found.manifest->total_bytes();
  summary.intact = found.problem.empty();
  summary.problem = found.problem;
  return summary;
}

struct Opened {
  std::unique_ptr<Storage> storage;
  FoundCheckpoint found;
};

// Whoever only looks makes no folder. In a bucket there are none: nothing is found there.
Status must_exist(FileSystem& files, const std::string& path) {
  if (is_object_storage(path)) return {};
  const auto listed = files.list(path);
  return listed ? Status() : Status(listed.error().with_context("look for checkpoints"));
}

// `path` names a checkpoint or a folder of them.
Result<Opened> open_checkpoint(FileSystem& files, const std::string& path) {
  PITCREW_TRY(must_exist(files, path));
  std::string folder = path;
  while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
  const std::string last =
      folder.substr(folder.find_last_of('/') == std::string::npos ? 0 : folder.find_last_of('/') + 1);
  if (const auto name = parse_checkpoint_name(last)) {
    PITCREW_ASSIGN(auto storage, open_storage(files, folder_of(folder)));
    FoundCheckpoint found = look_at(*storage, last, *name);
    return Opened{std::move(storage), std::move(found)};
  }
  PITCREW_ASSIGN(auto storage, open_storage(files, folder));
  PITCREW_ASSIGN(auto all, find_checkpoints(*storage));
  const auto committed = [](const FoundCheckpoint& found) { return found.committed; };
  const auto newest = std::find_if(all.begin(), all.end(), committed);
  if (newest == all.end()) return Error(Code::kNotFound, "there is no checkpoint in " + path);
  return Opened{std::move(storage), std::move(*newest)};
}

// Reads one tensor, or its cut into the whole tensor's bytes; `data` may be null: then the bytes are only checked.
Status read_tensor(Storage& storage, const std::string& folder, const Manifest& manifest,
                   const Manifest::Tensor& tensor, std::vector<std::byte>* data) {
  const uint64_t width = size_of(tensor.dtype);
  std::vector<std::byte> piece;
  for (const Manifest::Part& part : tensor.parts) {
    PITCREW_ASSIGN(const auto file, storage.open(join_path(folder, manifest.files[part.file].name)));
    const uint64_t bytes = part.count * width;
    for (uint64_t at = 0; at < bytes; at += kPieceChunks * kChunkBytes) {
      const uint64_t length = std::min(kPieceChunks * kChunkBytes, bytes - at);
      const bool straight = data != nullptr && tensor.cut.whole();
      if (!straight) piece.resize(length);
      const auto into = straight ? std::span(*data).subspan(part.first * width + at, length) : std::span(piece);
      PITCREW_TRY(read_checked(*file, manifest, tensor, part, at / kChunkBytes, into));
      if (straight || data == nullptr) continue;
      const uint64_t first = part.first + at / width;
      for_each_run(tensor.shape, tensor.cut, first, length / width, [&](const CutRun& run) {
        std::memcpy(data->data() + run.whole * width, piece.data() + (run.held - first) * width, run.count * width);
      });
    }
  }
  return {};
}

}  // namespace

Result<std::vector<CheckpointSummary>> list_checkpoints(FileSystem& files, const std::string& path) {
  PITCREW_TRY(must_exist(files, path));
  PITCREW_ASSIGN(const auto storage, open_storage(files, path));
  PITCREW_ASSIGN(const auto found, find_checkpoints(*storage));
  std::vector<CheckpointSummary> summaries;
  for (const auto& checkpoint : found) summaries.push_back(summarize(checkpoint));
  return summaries;
}

Result<CheckpointSummary> verify_checkpoint(FileSystem& files, const std::string& path) {
  PITCREW_ASSIGN(const auto opened, open_checkpoint(files, path));
  CheckpointSummary summary = summarize(opened.found);
  if (!opened.found.manifest) return summary;
  const Manifest& manifest = *opened.found.manifest;
  Status checked;
  for (const Manifest::File& entry : manifest.files) {
    const auto file = opened.storage->open(join_path(summary.name, entry.name));
    if (checked) checked = file ? check_header(**file, entry) : Status(file.error());
  }
  for (const Manifest::Tensor& tensor : manifest.tensors) {
    if (checked) checked = read_tensor(*opened.storage, summary.name, manifest, tensor, nullptr);
  }
  summary.intact = checked.ok();
  summary.problem = checked ? "" : checked.error().message;
  return summary;
}

Result<LoadedCheckpoint> load_tensors(FileSystem& files, const std::string& path,
                                      const std::function<bool(const std::string&)>& wanted) {
  PITCREW_ASSIGN(const auto opened, open_checkpoint(files, path));
  const FoundCheckpoint& found = opened.found;
  if (!found.manifest) return Error(Code::kDataLoss, "checkpoint " + found.folder + ": " + found.problem);
  LoadedCheckpoint loaded{found.manifest->name.step,
                          found.manifest->state,
                          found.manifest->config_hash,
                          found.manifest->bits_depend_on,
                          {}};
  for (const Manifest::Tensor& tensor : found.manifest->tensors) {
    if (wanted && !wanted(tensor.name)) continue;
    auto same = std::find_if(loaded.tensors.begin(), loaded.tensors.end(),
                             [&](const LoadedTensor& other) { return other.tensor.name == tensor.name; });
    if (tensor.cut.whole() || same == loaded.tensors.end()) {
      same = loaded.tensors.insert(loaded.tensors.end(), LoadedTensor{});
      same->tensor = {tensor.name, tensor.dtype, tensor.shape, nullptr};
      same->bytes.resize(same->tensor.bytes());
      same->tensor.data = same->bytes.data();
    }
    LoadedTensor& into = *same;
    if (const Status read = read_tensor(*opened.storage, found.folder, *found.manifest, tensor, &into.bytes); !read) {
      return read.error().with_context("checkpoint " + found.folder);
    }
  }
  return loaded;
}

}  // namespace pitcrew::trainer
