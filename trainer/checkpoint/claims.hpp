#pragma once

#include <functional>
#include <string>

#include "lib/base/clock.hpp"
#include "lib/base/environment.hpp"
#include "trainer/checkpoint/storage.hpp"

namespace pitcrew::trainer {

// Who may write to a checkpoint folder: the holder of the claim with the highest number, claims/<n>.json. Every epoch
// takes one. A writer of an older claim that is still alive somewhere finds the newer one before it commits, and stops.
//
// Used by rank 0: take() on the training thread, the rest by the savers' threads, one at a time for beat() and
// release().
class Claims {
 public:
  struct Settings {
    Duration living_within = seconds(30);
    Duration look_every = seconds(1);
  };

  // `pause` waits; the storage and the clock outlive this.
  Claims(Storage& storage, const Clock& clock, std::function<void(Duration)> pause, Settings settings);

  // Takes the next number. Where the newest claim is another job's and not released, watches its beat first.
  // kConflict: that job is living, or the newest claim is of a newer epoch of this job.
  Result<uint64_t> take(const JobIdentity& job, EpochNumber epoch);
  uint64_t number() const { return number_; }

  // Shows that the holder lives.
  Status beat();
  // kConflict where there is a newer claim than ours.
  Status check() const;
  // The folder is free for others at once.
  Status release();

 private:
  struct Found;
  Result<uint64_t> newest() const;
  Result<Found> read(uint64_t number) const;
  Result<bool> living(uint64_t number) const;
  void remove_old() const;

  Storage& storage_;
  const Clock& clock_;
  const std::function<void(Duration)> pause_;
  const Settings settings_;
  uint64_t number_ = 0;
  uint64_t beats_ = 0;
};

}  // namespace pitcrew::trainer
