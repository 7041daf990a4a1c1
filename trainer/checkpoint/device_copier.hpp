#pragma once

#include <deque>
#include <memory>
#include <mutex>

#include "trainer/checkpoint/copier.hpp"
#include "trainer/device/device.hpp"

namespace pitcrew::trainer {

// Copies on a side stream of a device, ordered against the compute stream by events. begin(), copy_out() and
// hold_compute() on the training thread, wait() on any. Ends, all copies done, with its destructor.
class DeviceCopier final : public Copier {
 public:
  DeviceCopier(Device& device, Stream& compute) : compute_(compute), side_(device.create_stream("checkpoint")) {}

  void begin() override { side_->wait(compute_.record()); }
  Ticket copy_out(std::byte* host, const std::byte* from, size_t bytes) override {
    side_->copy(host, from, bytes);
    const std::lock_guard lock(mutex_);
    // Copies end in order, so what lies before a reached event is done as well.
    while (!events_.empty() && events_.front()->reached()) {
      events_.pop_front();
      ++first_;
    }
    events_.push_back(side_->record());
    return first_ + events_.size() - 1;
  }
  void hold_compute(Ticket ticket) override {
    if (auto event = find(ticket)) compute_.wait(std::move(event));
  }
  void wait(Ticket ticket) override {
    if (const auto event = find(ticket)) event->wait();
  }
  void copy_in(std::byte* to, const std::byte* host, size_t bytes) override {
    side_->copy(to, host, bytes);
    side_->synchronize();
  }

 private:
  // Null: done long ago.
  std::shared_ptr<const Event> find(Ticket ticket) {
    const std::lock_guard lock(mutex_);
    return ticket < first_ ? nullptr : events_[ticket - first_];
  }

  Stream& compute_;
  std::unique_ptr<Stream> side_;
  std::mutex mutex_;
  std::deque<std::shared_ptr<const Event>> events_;
  Ticket first_ = 1;  // of events_.front()
};

}  // namespace pitcrew::trainer
