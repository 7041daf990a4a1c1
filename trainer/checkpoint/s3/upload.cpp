#include "trainer/checkpoint/s3/upload.hpp"

#include <algorithm>

namespace pitcrew::trainer::s3 {

PartUpload::PartUpload(Client& client, std::string key, Settings settings)
    : client_(client), key_(std::move(key)), settings_(settings) {}

PartUpload::~PartUpload() {
  for (auto& thread : threads_) thread.request_stop();
  threads_.clear();
  // What can't be removed now is found as an unfinished upload when the folder is.
  if (!upload_.empty() && !finished_) (void)client_.abort_parts(key_, upload_).ok();
}

Status PartUpload::append(std::span<const std::byte> data) {
  while (!data.empty()) {
    const size_t room = size_of_part(number_) - filling_.size();
    if (room == 0) {
      PITCREW_TRY(hand_over());
      continue;
    }
    if (filling_.empty()) filling_.reserve(size_of_part(number_));
    const auto piece = data.first(std::min(room, data.size()));
    filling_.insert(filling_.end(), piece.begin(), piece.end());
    bytes_ += piece.size();
    data = data.subspan(piece.size());
  }
  return {};
}

Status PartUpload::hand_over() {
  if (upload_.empty()) {
    PITCREW_ASSIGN(upload_, client_.begin_parts(key_));
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return under_way_ < settings_.parallel || failed_; });
  if (failed_) return *failed_;
  queue_.push_back({number_++, std::exchange(filling_, {})});
  ++under_way_;
  if (threads_.size() < under_way_)
    threads_.emplace_back([this](std::stop_token stop) { send_parts(std::move(stop)); });
  changed_.notify_all();
  return {};
}

void PartUpload::send_parts(std::stop_token stop) {
  while (true) {
    Pending part;
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [&] { return !queue_.empty(); })) return;
      part = std::move(queue_.front());
      queue_.pop_front();
    }
    auto sent = client_.put_part(key_, upload_, part.number, part.content);
    const std::lock_guard lock(mutex_);
    if (sent) {
      parts_.push_back(std::move(*sent));
    } else if (!failed_) {
      failed_ = sent.error();
    }
    --under_way_;
    changed_.notify_all();
  }
}

Status PartUpload::wait_for_all() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return under_way_ == 0 || failed_; });
  return failed_ ? Status(*failed_) : Status();
}

Status PartUpload::finish() {
  if (upload_.empty()) {
    PITCREW_TRY(client_.put(key_, filling_));
    finished_ = true;
    return {};
  }
  if (!filling_.empty()) PITCREW_TRY(hand_over());
  PITCREW_TRY(wait_for_all());
  std::sort(parts_.begin(), parts_.end(), [](const auto& a, const auto& b) { return a.number < b.number; });
  PITCREW_TRY(client_.complete_parts(key_, upload_, parts_, bytes_));
  finished_ = true;
  return {};
}

}  // namespace pitcrew::trainer::s3
