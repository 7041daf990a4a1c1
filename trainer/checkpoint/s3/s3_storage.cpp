#include "trainer/checkpoint/s3/s3_storage.hpp"

#include <algorithm>
#include <atomic>
#include <map>
#include <set>

#include "lib/base/digest.hpp"
#include "trainer/checkpoint/name.hpp"

namespace pitcrew::trainer::s3 {
namespace {

constexpr char kSpread[] = "data/";
constexpr size_t kSpreadLength = sizeof kSpread - 1 + 3;  // data/7f/
constexpr size_t kParallel = 8;
constexpr uint64_t kLeastRange = uint64_t{4} << 20;

// Calls `one` for 0 to count - 1 from several threads; the first error ends it.
Status in_parallel(size_t count, const std::function<Status(size_t)>& one) {
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::optional<Error> failed;
  const auto work = [&] {
    for (size_t i = next++; i < count; i = next++) {
      const Status done = one(i);
      if (done) continue;
      const std::lock_guard lock(mutex);
      if (!failed) failed = done.error();
      next = count;
    }
  };
  {
    std::vector<std::jthread> others;
    for (size_t i = 1; i < std::min(kParallel, count); ++i) others.emplace_back(work);
    work();
  }
  return failed ? Status(*failed) : Status();
}

class ObjectFile final : public File {
 public:
  ObjectFile(Client& client, Client::Object object) : client_(client), object_(std::move(object)) {}

  Status write(std::span<const std::byte>, uint64_t) override {
    return Error(Code::kUnsupported, object_.key + ": an object can't be written in place");
  }
  Status read(std::span<std::byte> data, uint64_t offset) const override {
    if (offset > object_.bytes || data.size() > object_.bytes - offset) {
      return Error(Code::kDataLoss, "s3://" + client_.location().bucket + "/" + object_.key + ": it has " +
                                        std::to_string(object_.bytes) + " bytes, so " + std::to_string(data.size()) +
                                        " can't be read at " + std::to_string(offset));
    }
    if (data.empty()) return {};
    const uint64_t ranges = std::clamp<uint64_t>(data.size() / kLeastRange, 1, kParallel);
    const uint64_t each = (data.size() + ranges - 1) / ranges;
    return in_parallel(ranges, [&](size_t i) {
      const uint64_t begin = std::min<uint64_t>(i * each, data.size());
      return client_.get(object_, offset + begin, data.subspan(begin, std::min(each, data.size() - begin)));
    });
  }
  Result<uint64_t> size() const override { return object_.bytes; }
  Status sync() override { return {}; }

 private:
  Client& client_;
  const Client::Object object_;
};

class S3Storage final : public Storage {
 public:
  S3Storage(Location location, Variables variables, const Clock& clock, Client::Settings settings,
            PartUpload::Settings parts)
      : prefix_(location.prefix), client_(std::move(location), std::move(variables), clock, settings), parts_(parts) {}

  const std::string& path() const override { return client_.location().path; }

  Result<std::unique_ptr<Upload>> write(const std::string& name) override {
    return std::unique_ptr<Upload>(new PartUpload(client_, prefix_ + key_of(name), parts_));
  }
  Status replace(const std::string& name, std::string_view content) override {
    return client_.put(prefix_ + key_of(name), std::as_bytes(std::span(content)));
  }
  Status create(const std::string& name, std::string_view content) override {
    return client_.create(prefix_ + key_of(name), std::as_bytes(std::span(content)));
  }

  Result<std::vector<Entry>> list(const std::string& folder) override {
    std::map<std::string, Entry> found;
    const std::string inside = folder.empty() ? prefix_ : prefix_ + folder + "/";
    PITCREW_ASSIGN(const auto plain, client_.list(inside, false));
    for (const auto& object : plain.objects) {
      const std::string name = object.key.substr(std::min(inside.size(), object.key.size()));
      if (!name.empty()) found[name] = {name, false, object.bytes};  // an empty one is a console's "folder"
    }
    for (const auto& below : plain.folders) {
      std::string name = below.substr(inside.size());
      name.pop_back();
      if (!folder.empty() || name + "/" != kSpread) found[name] = {name, true, 0};
    }
    if (folder.empty()) {
      PITCREW_ASSIGN(const auto folders, spread_folders());
      for (const auto& name : folders) found[name] = {name, true, 0};
    } else if (parse_checkpoint_name(folder)) {
      PITCREW_ASSIGN(const auto shards, spread_objects(folder));
      for (const auto& [name, object] : shards) found[name] = {name, false, object.bytes};
    }
    std::vector<Entry> entries;
    for (auto& [name, entry] : found) entries.push_back(std::move(entry));
    return entries;
  }

  Result<std::unique_ptr<File>> open(const std::string& name) override {
    PITCREW_ASSIGN(auto object, client_.head(prefix_ + key_of(name)));
    return std::unique_ptr<File>(new ObjectFile(client_, std::move(object)));
  }
  Result<std::string> read(const std::string& name, uint64_t limit) override {
    return client_.get(prefix_ + key_of(name), limit);
  }
  Status remove(const std::string& name) override { return client_.remove(prefix_ + key_of(name)); }

  Status remove_folder(const std::string& name) override {
    // Without its manifest it is no checkpoint any more, so a crash further down leaves none that lacks a part.
    PITCREW_TRY(remove(join_path(name, kManifestFile)));
    std::vector<std::string> keys;
    PITCREW_ASSIGN(const auto plain, client_.list(prefix_ + name + "/", true));
    for (const auto& object : plain.objects) keys.push_back(object.key);
    if (parse_checkpoint_name(name)) {
      PITCREW_TRY(abort_uploads(name));
      PITCREW_ASSIGN(const auto shards, spread_objects(name));
      for (const auto& [file, object] : shards) keys.push_back(object.key);
    }
    return in_parallel(keys.size(), [&](size_t i) { return client_.remove(keys[i]); });
  }

  void abort() override { client_.abort(); }

 private:
  // "step-…-c7/shard-…" of a spread key; empty: it is none.
  std::string name_of(const std::string& key) const {
    const size_t skipped = prefix_.size() + kSpreadLength;
    return key.size() > skipped ? key.substr(skipped) : std::string();
  }
  static std::string folder_in(const std::string& name) { return name.substr(0, name.find('/')); }

  Result<std::map<std::string, Client::Object>> spread_objects(const std::string& folder) {
    PITCREW_ASSIGN(const auto spread, client_.list(prefix_ + kSpread, true));
    std::map<std::string, Client::Object> found;
    for (const auto& object : spread.objects) {
      const std::string name = name_of(object.key);
      if (name.starts_with(folder + "/")) found[name.substr(folder.size() + 1)] = object;
    }
    return found;
  }

  // Also of uploads that were never finished, so that whoever cleans up finds them.
  Result<std::set<std::string>> spread_folders() {
    PITCREW_ASSIGN(const auto spread, client_.list(prefix_ + kSpread, true));
    std::set<std::string> folders;
    for (const auto& object : spread.objects) folders.insert(folder_in(name_of(object.key)));
    PITCREW_ASSIGN(const auto uploads, unfinished());
    for (const auto& upload : uploads) folders.insert(folder_in(name_of(upload.key)));
    folders.erase("");
    return folders;
  }

  // One who only reads checkpoints need not be allowed to see uploads.
  Result<std::vector<Client::Unfinished>> unfinished() {
    auto uploads = client_.unfinished(prefix_ + kSpread);
    if (!uploads && uploads.error().code == Code::kForbidden) return std::vector<Client::Unfinished>{};
    return uploads;
  }

  Status abort_uploads(const std::string& folder) {
    PITCREW_ASSIGN(const auto uploads, unfinished());
    for (const auto& upload : uploads) {
      if (folder_in(name_of(upload.key)) == folder) PITCREW_TRY(client_.abort_parts(upload.key, upload.upload));
    }
    return {};
  }

  const std::string prefix_;
  Client client_;
  const PartUpload::Settings parts_;
};

}  // namespace

std::string key_of(const std::string& name) {
  const size_t slash = name.find('/');
  if (slash == std::string::npos || !parse_checkpoint_name(name.substr(0, slash)) ||
      !name.substr(slash + 1).starts_with("shard"))
    return name;
  return kSpread + hex64(xxh3(name)).substr(0, 2) + "/" + name;
}

Result<std::unique_ptr<Storage>> open_s3_storage(const std::string& path, Variables variables, const Clock& clock,
                                                 Client::Settings settings, PartUpload::Settings parts) {
  PITCREW_ASSIGN(Location location, locate(path, variables));
  return std::unique_ptr<Storage>(new S3Storage(std::move(location), std::move(variables), clock, settings, parts));
}

}  // namespace pitcrew::trainer::s3
