#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "lib/base/result.hpp"
#include "trainer/data/permutation.hpp"

namespace pitcrew::trainer {

// Which sample comes when: a function of the dataset, the seed and the sample's number alone, so that it is the same
// for any number of ranks, and a run goes on anywhere without a sample lost or repeated.
//
// The row of tokens is cut into places of `sequence` predictions (sequence + 1 tokens; neighbours share one). Some
// places, chosen by the dataset's fingerprint, are held out for evaluation; the others are gone through once per pass,
// each pass in an order of its own. Immutable; use from any thread.
class SampleOrder {
 public:
  struct Settings {
    std::string fingerprint;
    uint64_t tokens = 0;
    uint32_t sequence = 0;
    uint64_t held_out = 0;  // samples
    uint64_t seed = 0;
  };
  // kInvalidArgument where the dataset is too small.
  static Result<SampleOrder> make(Settings settings);

  uint64_t samples_per_pass() const { return training_; }
  uint64_t held_out() const { return settings_.held_out; }
  uint32_t sequence() const { return settings_.sequence; }
  // Number of the first token of training sample `sample`, counted from the beginning of the run; and its pass.
  uint64_t first_token(uint64_t sample) const;
  uint64_t pass_of(uint64_t sample) const { return sample / training_; }
  // Of held-out sample `index`, always in the same order.
  uint64_t first_held_out_token(uint64_t index) const;

  // The state of a run that has used `sample` samples: {"version": "native-v1", "fingerprint", "seed", "sequence",
  // "heldOut", "sample"}. `sample_of` reads it back; kInvalidArgument where it belongs to another dataset or order.
  nlohmann::json state(uint64_t sample) const;
  Result<uint64_t> sample_of(const nlohmann::json& state) const;

 private:
  SampleOrder(Settings settings, uint64_t places);

  Settings settings_;
  uint64_t training_;
  Permutation split_;
};

}  // namespace pitcrew::trainer
