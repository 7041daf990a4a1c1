#include "tests/faults/faulty_files.hpp"

#include <algorithm>
#include <cstring>

namespace pitcrew::faults {
namespace {

constexpr size_t kPage = 4096;

std::string last_part(const std::string& path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

struct PowerLossFiles::Node {
  bool folder = false;
  std::vector<std::byte> bytes, synced_bytes;
  using Entries = std::map<std::string, std::shared_ptr<Node>>;
  Entries entries, synced_entries;
};

struct PowerLossFiles::Tree {
  std::mutex mutex;
  std::shared_ptr<Node> root = std::make_shared<Node>(Node{.folder = true});

  std::shared_ptr<Node> find(const std::string& path) const {
    std::shared_ptr<Node> node = root;
    size_t at = 0;
    while (at < path.size()) {
      const size_t end = std::min(path.find('/', at), path.size());
      const std::string part = path.substr(at, end - at);
      at = end + 1;
      if (part.empty() || part == ".") continue;
      const auto found = node->entries.find(part);
      if (!node->folder || found == node->entries.end()) return nullptr;
      node = found->second;
    }
    return node;
  }
  std::shared_ptr<Node> parent(const std::string& path) const { return find(folder_of(path)); }
};

namespace {
Error absent(const std::string& path) { return Error(Code::kNotFound, path + ": No such file or directory"); }
}  // namespace

class PowerLossFile final : public File {
 public:
  PowerLossFile(PowerLossFiles::Tree& tree, std::shared_ptr<PowerLossFiles::Node> node, std::string path)
      : tree_(tree), node_(std::move(node)), path_(std::move(path)) {}

  Status write(std::span<const std::byte> data, uint64_t offset) override {
    const std::lock_guard lock(tree_.mutex);
    if (node_->bytes.size() < offset + data.size()) node_->bytes.resize(offset + data.size());
    std::copy(data.begin(), data.end(), node_->bytes.begin() + static_cast<ptrdiff_t>(offset));
    return {};
  }
  Status read(std::span<std::byte> data, uint64_t offset) const override {
    const std::lock_guard lock(tree_.mutex);
    if (offset + data.size() > node_->bytes.size())
      return Error(Code::kDataLoss, "read " + path_ + ": it ends too early");
    std::copy_n(node_->bytes.begin() + static_cast<ptrdiff_t>(offset), data.size(), data.begin());
    return {};
  }
  Result<uint64_t> size() const override {
    const std::lock_guard lock(tree_.mutex);
    return uint64_t{node_->bytes.size()};
  }
  Status sync() override {
    const std::lock_guard lock(tree_.mutex);
    node_->synced_bytes = node_->bytes;
    return {};
  }

 private:
  PowerLossFiles::Tree& tree_;
  const std::shared_ptr<PowerLossFiles::Node> node_;
  const std::string path_;
};

PowerLossFiles::PowerLossFiles() : tree_(std::make_unique<Tree>()) {}
PowerLossFiles::~PowerLossFiles() = default;

void PowerLossFiles::lose_power(double kept, uint64_t seed) {
  const std::lock_guard lock(tree_->mutex);
  Random chance(seed);
  std::set<Node*> done;
  const std::function<void(Node&)> lose = [&](Node& node) {
    if (!done.insert(&node).second) return;
    if (!node.folder) {
      // Each page as it was synced, or as it was written since.
      std::vector<std::byte> left = node.synced_bytes;
      if (node.bytes.size() != left.size() && chance.chance(kept)) left.resize(node.bytes.size());
      for (size_t at = 0; at < left.size(); at += kPage) {
        if (at >= node.bytes.size() || !chance.chance(kept)) continue;
        const size_t length = std::min({kPage, left.size() - at, node.bytes.size() - at});
        std::copy_n(node.bytes.begin() + static_cast<ptrdiff_t>(at), length, left.begin() + static_cast<ptrdiff_t>(at));
      }
      node.bytes = node.synced_bytes = std::move(left);
      return;
    }
    Node::Entries left = node.synced_entries;
    std::set<std::string> names;
    for (const auto& [name, entry] : node.entries) names.insert(name);
    for (const auto& [name, entry] : node.synced_entries) names.insert(name);
    for (const auto& name : names) {
      const auto now = node.entries.find(name);
      const auto synced = node.synced_entries.find(name);
      const bool same =
          now != node.entries.end() && synced != node.synced_entries.end() && now->second == synced->second;
      if (same || !chance.chance(kept)) continue;
      left.erase(name);
      if (now != node.entries.end()) left[name] = now->second;
    }
    node.entries = node.synced_entries = std::move(left);
    for (const auto& [name, entry] : node.entries) lose(*entry);
  };
  lose(*tree_->root);
}

void PowerLossFiles::flip(const std::string& path, uint64_t byte) {
  const std::lock_guard lock(tree_->mutex);
  const auto node = tree_->find(path);
  PITCREW_INVARIANT(node && byte < node->bytes.size(), path);
  node->bytes[byte] ^= std::byte{4};
  node->synced_bytes = node->bytes;
}

Result<std::unique_ptr<File>> PowerLossFiles::open(const std::string& path, Open how) {
  const std::lock_guard lock(tree_->mutex);
  const auto parent = tree_->parent(path);
  auto node = tree_->find(path);
  if (!parent || (!node && how != Open::kCreate)) return absent(path);
  if (!node) node = parent->entries[last_part(path)] = std::make_shared<Node>();
  if (how == Open::kCreate) node->bytes.clear();
  return std::unique_ptr<File>(new PowerLossFile(*tree_, node, path));
}

Status PowerLossFiles::make_folder(const std::string& path) {
  const std::lock_guard lock(tree_->mutex);
  const auto parent = tree_->parent(path);
  if (!parent) return absent(path);
  if (const auto node = tree_->find(path)) {
    if (node->folder) return {};
    return Error(Code::kAlreadyExists, path + ": File exists");
  }
  parent->entries[last_part(path)] = std::make_shared<Node>(Node{.folder = true});
  return {};
}

Status PowerLossFiles::rename(const std::string& from, const std::string& to) {
  const std::lock_guard lock(tree_->mutex);
  const auto node = tree_->find(from);
  const auto parent = tree_->parent(to);
  if (!node || !parent) return absent(from);
  tree_->parent(from)->entries.erase(last_part(from));
  parent->entries[last_part(to)] = node;
  return {};
}

Status PowerLossFiles::link(const std::string& from, const std::string& to) {
  const std::lock_guard lock(tree_->mutex);
  const auto node = tree_->find(from);
  const auto parent = tree_->parent(to);
  if (!node || !parent) return absent(from);
  if (!parent->entries.emplace(last_part(to), node).second) return Error(Code::kAlreadyExists, to + ": File exists");
  return {};
}

Result<std::vector<FileSystem::Entry>> PowerLossFiles::list(const std::string& folder) {
  const std::lock_guard lock(tree_->mutex);
  const auto node = tree_->find(folder);
  if (!node || !node->folder) return absent(folder);
  std::vector<Entry> entries;
  for (const auto& [name, entry] : node->entries) entries.push_back({name, entry->folder, entry->bytes.size()});
  return entries;
}

Status PowerLossFiles::remove(const std::string& path) {
  const std::lock_guard lock(tree_->mutex);
  if (!tree_->find(path)) return absent(path);
  tree_->parent(path)->entries.erase(last_part(path));
  return {};
}

Status PowerLossFiles::remove_folder(const std::string& path) {
  const std::lock_guard lock(tree_->mutex);
  const auto node = tree_->find(path);
  if (!node) return absent(path);
  if (!node->entries.empty()) return Error(Code::kInternal, path + ": Directory not empty");
  tree_->parent(path)->entries.erase(last_part(path));
  return {};
}

Status PowerLossFiles::sync_folder(const std::string& folder) {
  const std::lock_guard lock(tree_->mutex);
  const auto node = tree_->find(folder);
  if (!node) return absent(folder);
  node->synced_entries = node->entries;
  return {};
}

Result<uint64_t> PowerLossFiles::free_bytes(const std::string&) { return uint64_t{1} << 40; }

std::string kind_of(const std::string& path) {
  std::string name = last_part(path);
  if (name.starts_with("step-")) return "the checkpoint's folder";
  if (name.starts_with("shard-")) return "shard";
  if (name == "claims") return "claims";
  if (name.find("manifest") == std::string::npos && name.find("damaged") == std::string::npos &&
      name.find('.') != std::string::npos) {
    const bool temporary = name.ends_with(".tmp");
    std::string kind = name.substr(name.find('.') + 1);
    return "claim's " + kind.substr(0, kind.find('.')) + (temporary ? ".tmp" : "");
  }
  return name.find('.') == std::string::npos ? "the folder" : name;
}

class FaultyFile final : public File {
 public:
  FaultyFile(FaultyFiles& files, std::unique_ptr<File> under, std::string path)
      : files_(files), under_(std::move(under)), path_(std::move(path)) {}
  Status write(std::span<const std::byte> data, uint64_t offset) override {
    const auto act = files_.judge("write", path_);
    if (act == FaultyFiles::Act::kHalf) PITCREW_TRY(under_->write(data.first(data.size() / 2), offset));
    if (act != FaultyFiles::Act::kPass) return files_.error_.with_context("write " + path_);
    return under_->write(data, offset);
  }
  Status read(std::span<std::byte> data, uint64_t offset) const override { return under_->read(data, offset); }
  Result<uint64_t> size() const override { return under_->size(); }
  Status sync() override {
    PITCREW_TRY(files_.check("sync", path_));
    return under_->sync();
  }

 private:
  FaultyFiles& files_;
  const std::unique_ptr<File> under_;
  const std::string path_;
};

void FaultyFiles::set_judge(Judge judge, Error error) {
  const std::lock_guard lock(mutex_);
  judge_ = std::move(judge);
  error_ = std::move(error);
  points_.clear();
}

std::vector<std::string> FaultyFiles::points() const {
  const std::lock_guard lock(mutex_);
  return points_;
}

FaultyFiles::Act FaultyFiles::judge(std::string_view verb, const std::string& path) {
  const std::lock_guard lock(mutex_);
  const std::string point = std::string(verb) + " " + kind_of(path);
  points_.push_back(point);
  return judge_ ? judge_(points_.size() - 1, point) : Act::kPass;
}

Status FaultyFiles::check(std::string_view verb, const std::string& path) {
  if (judge(verb, path) == Act::kPass) return {};
  return error_.with_context(std::string(verb) + " " + path);
}

Result<std::unique_ptr<File>> FaultyFiles::open(const std::string& path, Open how) {
  if (how != Open::kRead) PITCREW_TRY(check("make", path));
  PITCREW_ASSIGN(auto file, under_.open(path, how));
  return std::unique_ptr<File>(new FaultyFile(*this, std::move(file), path));
}

Status FaultyFiles::make_folder(const std::string& path) {
  PITCREW_TRY(check("make", path));
  return under_.make_folder(path);
}
Status FaultyFiles::rename(const std::string& from, const std::string& to) {
  PITCREW_TRY(check("rename", from));
  return under_.rename(from, to);
}
Status FaultyFiles::link(const std::string& from, const std::string& to) {
  PITCREW_TRY(check("link", to));
  return under_.link(from, to);
}
Status FaultyFiles::remove(const std::string& path) {
  PITCREW_TRY(check("remove", path));
  return under_.remove(path);
}
Status FaultyFiles::remove_folder(const std::string& path) {
  PITCREW_TRY(check("remove", path));
  return under_.remove_folder(path);
}
Status FaultyFiles::sync_folder(const std::string& folder) {
  PITCREW_TRY(check("sync", folder));
  return under_.sync_folder(folder);
}

}  // namespace pitcrew::faults
