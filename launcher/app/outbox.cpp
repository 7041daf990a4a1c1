#include "launcher/app/outbox.hpp"

#include <algorithm>

namespace pitcrew::launcher {

using api::channel::Saved;

void Outbox::keep(api::channel::FromLauncher message) {
  if (const Saved* saved = std::get_if<Saved>(&message); saved != nullptr) {
    std::erase_if(messages_, [&](const auto& old) {
      const Saved* before = std::get_if<Saved>(&old);
      return before != nullptr && before->durable == saved->durable && before->request.empty();
    });
  }
  if (messages_.size() == kMost) messages_.pop_front();
  messages_.push_back(std::move(message));
}

void Outbox::forget_stall() {
  std::erase_if(messages_, [](const auto& message) { return std::holds_alternative<api::channel::Stalled>(message); });
}

}  // namespace pitcrew::launcher
