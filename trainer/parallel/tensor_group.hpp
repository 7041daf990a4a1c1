#pragma once

#include <cstddef>

#include "lib/base/result.hpp"
#include "trainer/device/device.hpp"
#include "trainer/tensor/cut.hpp"

namespace pitcrew::trainer {

// The ranks that hold one model together, each a part of every layer's width, as the model sees them: bytes of the
// device move between them in a stream's order. Sums are the model's own, in the order of the ranks. A model of one
// rank has none.
//
// Both functions enqueue on the stream and return; all ranks enqueue the same ones in the same order. When one fails,
// what it should have brought, and what all later ones should, is filled with NaN, so that no optimizer step follows
// from it; status() tells once the stream has passed.
class TensorGroup {
 public:
  virtual ~TensorGroup() = default;
  virtual TensorPlace place() const = 0;

  // all[r] = mine of rank r; `bytes` each.
  virtual void all_gather(Stream& stream, const void* mine, void* all, size_t bytes) = 0;
  // received[r] = pieces[own rank] of rank r; `bytes` each.
  virtual void all_to_all(Stream& stream, const void* pieces, void* received, size_t bytes) = 0;

  // The first failure. From any thread.
  virtual Status status() const = 0;
};

}  // namespace pitcrew::trainer
