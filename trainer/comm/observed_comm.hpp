#pragma once

#include <functional>
#include <memory>

#include "trainer/comm/comm.hpp"
#include "trainer/comm/flight_recorder.hpp"

namespace pitcrew::trainer {

// Counts the collectives of the communicator below it and says when each begins and ends: what the progress page shows,
// and what tells the culprit of a hang (the lowest number) from those who wait. Owns nothing but the count, which
// several communicators of one thread may share; the callbacks run on the calling thread.
class ObservedComm final : public Comm {
 public:
  struct Observer {  // both or none
    std::function<void(uint64_t sequence)> enter;
    std::function<void()> leave;
  };
  // `sequence`: counts on where another of the same thread's communicators counts, too; null: this one alone.
  ObservedComm(Comm& below, Observer observer, FlightRecorder::Track* recorder = nullptr,
               std::shared_ptr<uint64_t> sequence = nullptr)
      : below_(below),
        observer_(std::move(observer)),
        recorder_(recorder),
        sequence_(sequence ? std::move(sequence) : std::make_shared<uint64_t>(0)) {}

  uint32_t rank() const override { return below_.rank(); }
  uint32_t size() const override { return below_.size(); }
  bool device_memory() const override { return below_.device_memory(); }
  Status barrier() override;
  Status broadcast(std::span<std::byte> data, uint32_t root) override;
  Status all_gather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  Status exchange(std::span<const Send> sends, std::span<const Receive> receives) override;
  void abort() override { below_.abort(); }
  std::optional<uint32_t> lost_peer() const override { return below_.lost_peer(); }

  // A collective of the communicator below that Comm does not know. `kind` lives for ever.
  Status observed(const char* kind, uint64_t bytes, const std::function<Status()>& collective);
  const std::shared_ptr<uint64_t>& sequence() const { return sequence_; }

 private:
  Comm& below_;
  Observer observer_;
  FlightRecorder::Track* const recorder_;  // null: nothing is recorded
  const std::shared_ptr<uint64_t> sequence_;
};

}  // namespace pitcrew::trainer
