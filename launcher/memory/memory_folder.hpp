#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/supervise/process.hpp"
#include "lib/base/environment.hpp"
#include "lib/base/launcher_socket.hpp"

namespace pitcrew::launcher {

// PITCREW_MEMORY as lib/base/launcher_socket.hpp lays it out. Names that come from outside are checked here and nowhere
// else: letters, digits, '.', '_', '-', no hidden names, no links. What is found at the start is kept: it may be all
// that is left of a checkpoint. Single-threaded.
class MemoryFolder {
 public:
  // Makes what is missing of the layout; removes what an interrupted copy left (*.part) and what ranks had fetched.
  static Result<MemoryFolder> open(const std::string& root);

  const std::string& root() const { return root_; }

  struct Readable {
    Descriptor file;
    uint64_t size = 0;
  };
  // A file below own/ or peer/.
  Result<Readable> open_file(const std::string& path) const;

  // A file that is being written: it has its name once commit() has been called, and is gone if it never was. Where
  // there is not enough room for it, nothing is begun: kResourceExhausted.
  class Incoming {
   public:
    Incoming(Incoming&& other) noexcept;
    ~Incoming();
    Status write(const void* data, size_t size, uint64_t offset);
    Status commit();

   private:
    friend class MemoryFolder;
    Incoming(Descriptor file, std::string path) : file_(std::move(file)), path_(std::move(path)) {}
    Descriptor file_;
    std::string path_;  // empty: committed or moved from
  };
  Result<Incoming> receive_copy(Slot of, const std::string& checkpoint, const std::string& file, uint64_t size);
  Result<Incoming> receive_fetched(const std::string& into, uint64_t size);

  // Everything that is held, names sorted, without what is still being written.
  launcher_socket::Held held() const;
  // The checkpoints that count.
  std::vector<ResumePoint> counted() const;
  // Marks it, and removes copies that were made for checkpoints before the one that counted last.
  Status mark_counted(const std::string& checkpoint);
  Status drop_own(const std::string& checkpoint);  // with its mark
  Status drop_copy(Slot of, const std::string& checkpoint);
  void clear_fetched();
  Result<uint64_t> free_bytes() const;

 private:
  explicit MemoryFolder(std::string root) : root_(std::move(root)) {}
  Result<Incoming> receive(const std::string& folder, const std::string& name, uint64_t size);

  std::string root_;
};

// "step-120-c3" → step 120, claim 3.
std::optional<ResumePoint> parse_checkpoint_name(std::string_view name);
// Whether it may be a name of one file or folder.
bool valid_name(std::string_view name);
// Whether it may be a path of such names: at most 8 of them.
bool valid_path(std::string_view path);

}  // namespace pitcrew::launcher
