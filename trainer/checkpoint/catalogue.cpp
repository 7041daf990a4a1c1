#include "trainer/checkpoint/catalogue.hpp"

#include <algorithm>

#include "lib/base/digest.hpp"
#include "trainer/checkpoint/checkpointer.hpp"

namespace pitcrew::trainer {
namespace {

constexpr uint64_t kSmallFile = 64 * 1024;

std::string check_files(const Manifest& manifest, const std::vector<Storage::Entry>& entries) {
  for (const Manifest::File& file : manifest.files) {
    const auto found =
        std::find_if(entries.begin(), entries.end(), [&](const auto& entry) { return entry.name == file.name; });
    if (found == entries.end()) return file.name + " is missing";
    if (found->bytes != file.bytes) {
      return file.name + " has " + std::to_string(found->bytes) + " bytes instead of " + std::to_string(file.bytes);
    }
  }
  return "";
}

}  // namespace

FoundCheckpoint look_at(Storage& storage, const std::string& folder, CheckpointName name) {
  FoundCheckpoint found{.name = name, .folder = folder};
  const auto entries = storage.list(folder);
  if (!entries) {
    found.problem = entries.error().message;
    return found;
  }
  const auto has = [&](std::string_view file) {
    return std::any_of(entries->begin(), entries->end(), [&](const auto& entry) { return entry.name == file; });
  };
  found.committed = has(kManifestFile);
  if (!found.committed) {
    found.problem = "it has no manifest: it is being written, or its writer ended before";
    return found;
  }
  const auto text = storage.read(join_path(folder, kManifestFile), kMaxManifest);
  auto manifest = text ? decode_manifest(*text) : Result<Manifest>(text.error());
  if (!manifest) {
    found.problem = manifest.error().message;
    return found;
  }
  if (manifest->name != name) {
    found.problem = "manifest: it is of " + to_string(manifest->name);
    return found;
  }
  found.problem = check_files(*manifest, *entries);
  if (found.problem.empty() && has(kDamagedFile)) {
    const auto note = storage.read(join_path(folder, kDamagedFile), kSmallFile);
    const auto json = note ? parse_json(*note) : Result<Json>(note.error());
    found.problem = json && json->is_object() && json->contains("problem") && (*json)["problem"].is_string()
                        ? (*json)["problem"].get<std::string>()
                        : "an earlier reader found it damaged";
  }
  found.manifest = std::move(*manifest);
  return found;
}

Result<std::vector<FoundCheckpoint>> find_checkpoints(Storage& storage) {
  PITCREW_ASSIGN(const auto entries, storage.list(""));
  std::vector<FoundCheckpoint> found;
  for (const auto& entry : entries) {
    const auto name = parse_checkpoint_name(entry.name);
    if (entry.folder && name) found.push_back(look_at(storage, entry.name, *name));
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.name > b.name; });
  return found;
}

Status remove_beyond(Storage& storage, uint32_t keep, const Logger& log) {
  PITCREW_ASSIGN(const auto found, find_checkpoints(storage));
  uint32_t intact = 0;
  for (const FoundCheckpoint& checkpoint : found) {
    if (!checkpoint.committed) continue;
    if (!checkpoint.problem.empty()) {
      log.warning("a damaged checkpoint is kept and not counted",
                  {{"checkpoint", checkpoint.folder}, {"problem", checkpoint.problem}});
      continue;
    }
    if (++intact <= std::max(keep, 1u)) continue;
    PITCREW_TRY(storage.remove_folder(checkpoint.folder));
    log.info("removed an old checkpoint", {{"checkpoint", checkpoint.folder}});
  }
  return {};
}

Status remove_unfinished(Storage& storage, uint64_t claim, const Logger& log) {
  PITCREW_ASSIGN(const auto entries, storage.list(""));
  for (const auto& entry : entries) {
    const auto name = parse_checkpoint_name(entry.name);
    if (!entry.folder || !name || name->claim >= claim) continue;
    PITCREW_ASSIGN(const auto inner, storage.list(entry.name));
    if (std::any_of(inner.begin(), inner.end(), [](const auto& file) { return file.name == kManifestFile; })) continue;
    PITCREW_TRY(storage.remove_folder(entry.name));
    log.info("removed an unfinished checkpoint of an earlier epoch", {{"checkpoint", entry.name}});
  }
  return {};
}

Status mark_damaged(Storage& storage, const std::string& folder, const std::string& problem) {
  return storage.replace(join_path(folder, kDamagedFile),
                         Json{{"problem", problem}}.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

Status read_checked(const File& file, const Manifest& manifest, const Manifest::Tensor& tensor,
                    const Manifest::Part& part, uint64_t first_chunk, std::span<std::byte> data) {
  const uint64_t offset = part.offset + first_chunk * kChunkBytes;
  const std::string& name = manifest.files[part.file].name;
  if (const Status read = file.read(data, offset); !read)
    return read.error().with_context(name + ": tensor " + tensor.name);
  for (uint64_t at = 0, chunk = first_chunk; at < data.size(); at += kChunkBytes, ++chunk) {
    if (xxh3(data.data() + at, std::min<uint64_t>(kChunkBytes, data.size() - at)) == part.chunks[chunk]) continue;
    return Error(Code::kDataLoss, name + ": digest differs in tensor " + tensor.name + ", chunk at byte " +
                                      std::to_string(offset + at) + " (the file is damaged)");
  }
  return {};
}

Status check_header(const File& file, const Manifest::File& entry) {
  std::vector<std::byte> header(entry.header_bytes);
  if (const Status read = file.read(header, 0); !read) return read.error().with_context(entry.name + ": header");
  if (xxh3(header.data(), header.size()) == entry.header_digest) return {};
  return Error(Code::kDataLoss, entry.name + ": digest differs in the header (the file is damaged)");
}

}  // namespace pitcrew::trainer
