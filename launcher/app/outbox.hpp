#pragma once

#include <deque>
#include <functional>

#include "lib/api/channel.hpp"

namespace pitcrew::launcher {

// The messages of the present epoch that must reach the operator: said again after every reconnect, since an operator
// that has gone may have heard them and another one leads now. Cleared when an epoch begins. Bounded: a memory
// checkpoint replaces the one before it, a durable one too unless it answers a request, and beyond the limit the oldest
// go.
class Outbox {
 public:
  void keep(api::channel::FromLauncher message);
  // The ranks move again: nobody who comes later needs to hear that they had not.
  void forget_stall();
  void clear() { messages_.clear(); }
  const std::deque<api::channel::FromLauncher>& messages() const { return messages_; }

  static constexpr size_t kMost = 256;

 private:
  std::deque<api::channel::FromLauncher> messages_;
};

}  // namespace pitcrew::launcher
