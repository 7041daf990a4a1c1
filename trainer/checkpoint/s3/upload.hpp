#pragma once

#include <deque>
#include <thread>

#include "trainer/checkpoint/s3/client.hpp"
#include "trainer/checkpoint/storage.hpp"

namespace pitcrew::trainer::s3 {

// One object, sent in parts while it is being written, some at a time; one of a single part is a plain put. Not there
// before finish() has returned. Dropped before that, its parts are removed; of a process that was killed they stay as
// an unfinished upload, until its folder is removed.
class PartUpload final : public Storage::Upload {
 public:
  struct Settings {
    // Of the first parts. S3 wants 5 MiB at least and takes 10,000 parts, so they double every thousand.
    size_t part_bytes = size_t{16} << 20;
    size_t parallel = 8;
  };

  // The client outlives this.
  PartUpload(Client& client, std::string key, Settings settings);
  ~PartUpload() override;

  Status append(std::span<const std::byte> data) override;
  Status finish() override;

 private:
  struct Pending {
    int number = 0;
    std::vector<std::byte> content;
  };
  size_t size_of_part(int number) const { return settings_.part_bytes << ((number - 1) / 1000); }
  Status hand_over();
  Status wait_for_all();
  void send_parts(std::stop_token stop);

  Client& client_;
  const std::string key_;
  const Settings settings_;
  std::string upload_;  // empty: not begun
  std::vector<std::byte> filling_;
  int number_ = 1;  // of the part that is being filled
  uint64_t bytes_ = 0;
  bool finished_ = false;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Pending> queue_;
  size_t under_way_ = 0;  // taken from the queue, or in it
  std::vector<Client::Part> parts_;
  std::optional<Error> failed_;
  std::vector<std::jthread> threads_;
};

}  // namespace pitcrew::trainer::s3
