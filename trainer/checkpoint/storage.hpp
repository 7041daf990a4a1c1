#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lib/base/file.hpp"

namespace pitcrew::trainer {

// A place that keeps the files of checkpoints. Names are "<folder>/<file>". What returned without an error survives a
// crash and a power loss from then on. Thread-safe. tests/contract/storage says what every implementation must do.
class Storage {
 public:
  // A file being written, in order. Not there for readers to count on until finish() has returned; dropped before that,
  // a part of it may be left and is removed with its folder.
  class Upload {
   public:
    virtual ~Upload() = default;
    virtual Status append(std::span<const std::byte> data) = 0;
    virtual Status finish() = 0;
  };
  struct Entry {
    std::string name;
    bool folder = false;
    uint64_t bytes = 0;
  };

  virtual ~Storage() = default;
  virtual const std::string& path() const = 0;  // for messages
  // Empties the file where it exists; makes its folder where that is absent.
  virtual Result<std::unique_ptr<Upload>> write(const std::string& name) = 0;
  // A small file, whole or not at all.
  virtual Status replace(const std::string& name, std::string_view content) = 0;
  // The same, but kAlreadyExists where there is one: of several who try, one succeeds.
  virtual Status create(const std::string& name, std::string_view content) = 0;
  // Of a folder, or of the whole place (""); nothing where it is absent. Temporaries are left out.
  virtual Result<std::vector<Entry>> list(const std::string& folder) = 0;
  virtual Result<std::unique_ptr<File>> open(const std::string& name) = 0;  // for reading
  virtual Result<std::string> read(const std::string& name, uint64_t limit) = 0;
  virtual Status remove(const std::string& name) = 0;         // fine where it is absent
  virtual Status remove_folder(const std::string& name) = 0;  // with all that is in it, the manifest first
  // Ends what waits for a network, from any thread: kCancelled, then and from then on.
  virtual void abort() {}
};

// Whether the path is of object storage (s3://bucket/prefix), not of a file system.
bool is_object_storage(const std::string& path);

// The storage at a checkpoint path: a folder of a file system, which is made where it is absent, or s3://bucket/prefix.
// kUnsupported: other schemes, or s3:// where libpitcrew_s3.so isn't there. What S3 needs comes from the environment;
// see docs/checkpoints-s3.md.
Result<std::unique_ptr<Storage>> open_storage(FileSystem& files, const std::string& path);

}  // namespace pitcrew::trainer
