#include "launcher/memory/memory_folder.hpp"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <memory>

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace pitcrew::launcher {
namespace {

constexpr size_t kLongestName = 128;
constexpr size_t kDeepest = 8;
constexpr size_t kMostEntries = 65536;  // of one listing
constexpr std::string_view kPart = ".part";

struct Entry {
  std::string name;
  bool folder = false;
};

std::vector<Entry> entries_of(const std::string& folder) {
  std::vector<Entry> entries;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(folder.c_str()), closedir);
  if (!dir) return entries;
  while (const dirent* entry = readdir(dir.get())) {
    const std::string name = entry->d_name;
    if (name == "." || name == ".." || entries.size() >= kMostEntries) continue;
    struct stat st {};
    if (lstat((folder + "/" + name).c_str(), &st) == 0) entries.push_back({name, S_ISDIR(st.st_mode)});
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
  return entries;
}

// Files below the folder, as paths relative to it.
void files_below(const std::string& folder, const std::string& prefix, size_t depth, std::vector<std::string>& files) {
  if (depth > kDeepest) return;
  for (const Entry& entry : entries_of(folder)) {
    if (!valid_name(entry.name) || entry.name.ends_with(kPart)) continue;
    const std::string path = prefix + entry.name;
    if (entry.folder) {
      files_below(folder + "/" + entry.name, path + "/", depth + 1, files);
    } else if (files.size() < kMostEntries) {
      files.push_back(path);
    }
  }
}

Status remove_tree(const std::string& path) {
  for (const Entry& entry : entries_of(path)) {
    if (entry.folder) {
      PITCREW_TRY(remove_tree(path + "/" + entry.name));
    } else if (unlink((path + "/" + entry.name).c_str()) != 0 && errno != ENOENT) {
      return errno_error("remove " + path + "/" + entry.name, errno);
    }
  }
  if (rmdir(path.c_str()) != 0 && errno != ENOENT) return errno_error("remove " + path, errno);
  return {};
}

void remove_parts(const std::string& folder, size_t depth) {
  for (const Entry& entry : entries_of(folder)) {
    const std::string path = folder + "/" + entry.name;
    if (entry.folder && depth < kDeepest) {
      remove_parts(path, depth + 1);
    } else if (entry.name.ends_with(kPart)) {
      unlink(path.c_str());
    }
  }
}

Status make_folder(const std::string& path) {
  if (mkdir(path.c_str(), 0770) != 0 && errno != EEXIST) return errno_error("make " + path, errno);
  return {};
}

// Opens `path` below `root` without following any link: what a rank puts there must not lead elsewhere.
int open_beneath(const std::string& root, const std::string& path, int flags) {
  const Descriptor folder(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return -1;
  open_how how{};
  how.flags = static_cast<uint64_t>(flags);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  const long fd = syscall(SYS_openat2, folder.get(), path.c_str(), &how, sizeof how);
  if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return static_cast<int>(fd);
  return ::openat(folder.get(), path.c_str(), flags | O_NOFOLLOW);  // before Linux 5.6
}

Error bad_name(std::string_view what, std::string_view name) {
  return Error(Code::kInvalidArgument, std::string(what) + " '" + std::string(name.substr(0, 200)) +
                                           "': names are letters, digits, '.', '_' and '-', and don't begin with '.'");
}

}  // namespace

bool valid_name(std::string_view name) {
  if (name.empty() || name.size() > kLongestName || name[0] == '.') return false;
  return std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return std::isalnum(c) || c == '.' || c == '_' || c == '-'; });
}

bool valid_path(std::string_view path) {
  for (size_t depth = 0; depth < kDeepest; ++depth) {
    const size_t end = path.find('/');
    if (!valid_name(path.substr(0, end))) return false;
    if (end == std::string_view::npos) return true;
    path.remove_prefix(end + 1);
  }
  return false;
}

std::optional<ResumePoint> parse_checkpoint_name(std::string_view name) {
  constexpr std::string_view kStep = "step-";
  if (!name.starts_with(kStep)) return std::nullopt;
  const char* end = name.data() + name.size();
  ResumePoint point;
  point.place = Place::kMemory;
  const auto step = std::from_chars(name.data() + kStep.size(), end, point.step.value);
  if (step.ec != std::errc() || std::string_view(step.ptr, static_cast<size_t>(end - step.ptr)).substr(0, 2) != "-c")
    return std::nullopt;
  const auto claim = std::from_chars(step.ptr + 2, end, point.claim);
  if (claim.ec != std::errc() || claim.ptr != end) return std::nullopt;
  return point;
}

Result<MemoryFolder> MemoryFolder::open(const std::string& root) {
  MemoryFolder folder(root);
  for (const char* name : {"", "/own", "/peer", "/counted", "/fetch"}) PITCREW_TRY(make_folder(root + name));
  remove_parts(root + "/own", 0);
  remove_parts(root + "/peer", 0);
  folder.clear_fetched();
  return folder;
}

Result<MemoryFolder::Readable> MemoryFolder::open_file(const std::string& path) const {
  if (!valid_path(path) || !(path.starts_with("own/") || path.starts_with("peer/")))
    return bad_name("read memory file", path);
  Readable readable;
  readable.file = Descriptor(open_beneath(root_, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!readable.file) return errno_error("read memory file " + path, errno);
  struct stat st {};
  if (fstat(readable.file.get(), &st) != 0) return errno_error("read memory file " + path, errno);
  if (!S_ISREG(st.st_mode)) return Error(Code::kInvalidArgument, "read memory file " + path + ": it is not a file");
  readable.size = static_cast<uint64_t>(st.st_size);
  return readable;
}

Result<MemoryFolder::Incoming> MemoryFolder::receive(const std::string& folder, const std::string& name,
                                                     uint64_t size) {
  std::string made = root_;
  std::string_view rest = folder;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('/'), rest.size());
    made += "/" + std::string(rest.substr(0, end));
    PITCREW_TRY(make_folder(made));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  const std::string path = made + "/" + name;
  unlink((path + std::string(kPart)).c_str());
  Descriptor file(
      ::open((path + std::string(kPart)).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0660));
  if (!file) return errno_error("make " + path, errno);
  Incoming incoming(std::move(file), path);
  // Asked, not reserved: on a tmpfs reserving means clearing every page now, on the loop.
  PITCREW_ASSIGN(const uint64_t room, free_bytes());
  if (size > room) {
    return Error(Code::kResourceExhausted, path + " needs " + std::to_string(size) +
                                               " bytes and the memory folder has " + std::to_string(room) +
                                               " left; enlarge checkpoint.memory.size");
  }
  return incoming;
}

Result<MemoryFolder::Incoming> MemoryFolder::receive_copy(Slot of, const std::string& checkpoint,
                                                          const std::string& file, uint64_t size) {
  if (!valid_name(checkpoint)) return bad_name("copy of checkpoint", checkpoint);
  if (!valid_path(file) || file.ends_with(kPart)) return bad_name("copy of file", file);
  const std::string folder = "peer/" + std::to_string(of.value) + "/" + checkpoint;
  const size_t slash = file.rfind('/');
  if (slash == std::string::npos) return receive(folder, file, size);
  return receive(folder + "/" + file.substr(0, slash), file.substr(slash + 1), size);
}

Result<MemoryFolder::Incoming> MemoryFolder::receive_fetched(const std::string& into, uint64_t size) {
  if (!valid_path(into) || into.ends_with(kPart)) return bad_name("fetch into", into);
  const size_t slash = into.rfind('/');
  if (slash == std::string::npos) return receive("fetch", into, size);
  return receive("fetch/" + into.substr(0, slash), into.substr(slash + 1), size);
}

MemoryFolder::Incoming::Incoming(Incoming&& other) noexcept
    : file_(std::move(other.file_)), path_(std::move(other.path_)) {
  other.path_.clear();
}

MemoryFolder::Incoming::~Incoming() {
  if (!path_.empty()) unlink((path_ + std::string(kPart)).c_str());
}

Status MemoryFolder::Incoming::write(const void* data, size_t size, uint64_t offset) {
  const char* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t wrote = pwrite(file_.get(), bytes, size, static_cast<off_t>(offset));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return errno_error("write " + path_, errno);
    bytes += wrote;
    offset += static_cast<uint64_t>(wrote);
    size -= static_cast<size_t>(wrote);
  }
  return {};
}

Status MemoryFolder::Incoming::commit() {
  if (rename((path_ + std::string(kPart)).c_str(), path_.c_str()) != 0)
    return errno_error("put " + path_ + " in place", errno);
  path_.clear();
  return {};
}

launcher_socket::Held MemoryFolder::held() const {
  launcher_socket::Held held;
  files_below(root_ + "/own", "", 0, held.own);
  for (const Entry& slot : entries_of(root_ + "/peer")) {
    uint32_t number = 0;
    const auto [end, error] = std::from_chars(slot.name.data(), slot.name.data() + slot.name.size(), number);
    if (!slot.folder || error != std::errc() || end != slot.name.data() + slot.name.size()) continue;
    launcher_socket::Held::Copy copy;
    copy.of = Slot(number);
    files_below(root_ + "/peer/" + slot.name, "", 1, copy.files);
    if (!copy.files.empty()) held.peer.push_back(std::move(copy));
  }
  for (const Entry& mark : entries_of(root_ + "/counted")) {
    if (valid_name(mark.name)) held.counted.push_back(mark.name);
  }
  return held;
}

std::vector<ResumePoint> MemoryFolder::counted() const {
  std::vector<ResumePoint> points;
  for (const Entry& mark : entries_of(root_ + "/counted")) {
    if (const auto point = parse_checkpoint_name(mark.name)) points.push_back(*point);
  }
  std::sort(points.begin(), points.end(), [](const ResumePoint& a, const ResumePoint& b) {
    return std::pair(a.claim, a.step) > std::pair(b.claim, b.step);
  });
  return points;
}

Status MemoryFolder::mark_counted(const std::string& checkpoint) {
  const auto point = valid_name(checkpoint) ? parse_checkpoint_name(checkpoint) : std::nullopt;
  if (!point) return bad_name("count checkpoint", checkpoint);
  const Descriptor mark(::open((root_ + "/counted/" + checkpoint).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0660));
  if (!mark) return errno_error("mark " + checkpoint + " as counted", errno);
  const auto order = [](const ResumePoint& p) { return std::pair(p.claim, p.step); };
  const auto all = counted();
  const auto before =
      std::find_if(all.begin(), all.end(), [&](const ResumePoint& p) { return order(p) < order(*point); });
  if (before == all.end()) return {};
  for (const Entry& slot : entries_of(root_ + "/peer")) {
    for (const Entry& copy : entries_of(root_ + "/peer/" + slot.name)) {
      const auto of = parse_checkpoint_name(copy.name);
      if (of && order(*of) < order(*before)) PITCREW_TRY(remove_tree(root_ + "/peer/" + slot.name + "/" + copy.name));
    }
  }
  return {};
}

Status MemoryFolder::drop_own(const std::string& checkpoint) {
  if (!valid_name(checkpoint)) return bad_name("drop checkpoint", checkpoint);
  // The mark first: a mark without files would promise what is not there.
  const std::string mark = root_ + "/counted/" + checkpoint;
  if (unlink(mark.c_str()) != 0 && errno == EISDIR) rmdir(mark.c_str());  // made by ranks that ran without a launcher
  return remove_tree(root_ + "/own/" + checkpoint);
}

Status MemoryFolder::drop_copy(Slot of, const std::string& checkpoint) {
  if (!valid_name(checkpoint)) return bad_name("drop copy of checkpoint", checkpoint);
  const std::string folder = root_ + "/peer/" + std::to_string(of.value);
  PITCREW_TRY(remove_tree(folder + "/" + checkpoint));
  rmdir(folder.c_str());  // fails where other copies are left
  return {};
}

void MemoryFolder::clear_fetched() {
  for (const Entry& entry : entries_of(root_ + "/fetch")) {
    const std::string path = root_ + "/fetch/" + entry.name;
    if (entry.folder) {
      // Left-overs that can't be removed cost room and nothing else.
      [[maybe_unused]] const Status removed = remove_tree(path);
    } else {
      unlink(path.c_str());
    }
  }
}

Result<uint64_t> MemoryFolder::free_bytes() const {
  struct statvfs room {};
  if (statvfs(root_.c_str(), &room) != 0) return errno_error("ask for the room of " + root_, errno);
  return static_cast<uint64_t>(room.f_bavail) * room.f_frsize;
}

}  // namespace pitcrew::launcher
