#include "lib/kube/watch/reflector.hpp"

#include <algorithm>

namespace pitcrew::kube {
namespace {

template <typename... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <typename... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

// So many tries in a row to open a watch on a kept version; then the version itself is doubted.
constexpr int kTriesBeforeRelist = 6;

bool keeps_version(Code code) {
  return code == Code::kUnavailable || code == Code::kTooManyRequests || code == Code::kDeadlineExceeded;
}

}  // namespace

std::vector<Reflector::Action> Reflector::step(const Input& input, Instant now, double chance) {
  return std::visit(Overloaded{
                        [&](const Started&) -> Actions {
                          if (state_ != State::kIdle) return {};
                          return list(false, now, chance);
                        },
                        [&](const Page& page) { return on_page(page, now, chance); },
                        [&](const ListFailed& failed) { return on_list_failed(failed.error, now, chance); },
                        [&](const Event& event) { return on_event(event, now, chance); },
                        [&](const WatchEnded& ended) { return on_watch_ended(ended.status, now, chance); },
                        [&](const Woken&) { return on_woken(now, chance); },
                        [&](const Doubted&) { return on_doubted(now, chance); },
                    },
                    input);
}

// The first list takes what the server's cache has; later ones must not be older than what is known. Once that has
// expired too, the newest.
Reflector::Actions Reflector::list(bool after_expiry, Instant now, double chance) {
  paging_restarted_ = false;
  newest_ = after_expiry;
  if (settings_.streaming_list && streams_) return stream(now, chance);
  state_ = State::kListing;
  list_version_ = newest_ ? "" : (resource_version_.empty() ? "0" : resource_version_);
  // With a version the server's cache answers whole; pages would pass it by (client-go tools/pager).
  const bool pages = newest_ || list_version_ == "0";
  return {SendList{list_version_, "", pages ? settings_.page_size : 0, true}};
}

Reflector::Actions Reflector::stream(Instant now, double chance) {
  Actions actions = watch(now, chance);
  state_ = State::kStreaming;
  auto& open = std::get<OpenWatch>(actions.front());
  open.initial = true;
  if (newest_) open.resource_version.clear();
  return actions;
}

Reflector::Actions Reflector::on_streamed(const Event& event, Instant now, double chance) {
  last_heard_ = now;
  switch (event.type) {
    case WatchEventType::kAdded:
    case WatchEventType::kModified:
      return {Collect{}};
    case WatchEventType::kBookmark:
      if (!event.initial_end || event.resource_version.empty()) return {};
      listed_ = true;
      heard_ = true;
      resource_version_ = event.resource_version;
      healthy_since_ = now;
      state_ = State::kWatching;
      return {FinishList{}};
    case WatchEventType::kDeleted:
    case WatchEventType::kUnknown:
      // Not before the mark, by the API's promise: a server that does so is not one to stream from.
      return stream_refused(Error(Code::kUnsupported, "a deletion among the first objects"), now, chance);
    case WatchEventType::kError:
      return stream_refused(event.error.value_or(Error(Code::kInternal, "the watch failed without a reason")), now,
                            chance);
  }
  return {};
}

Reflector::Actions Reflector::stream_refused(const Error& error, Instant now, double chance) {
  Actions actions{CloseWatch{}};
  Actions next;
  if (error.code == Code::kGone && !newest_) {
    next = list(true, now, chance);
  } else if (keeps_version(error.code) || error.code == Code::kGone) {
    next = back_off(true, error.retry_after, now, chance);
  } else {
    streams_ = false;
    next = list(false, now, chance);
  }
  for (Action& action : next) actions.push_back(std::move(action));
  return actions;
}

Reflector::Actions Reflector::watch(Instant now, double chance) {
  state_ = State::kWatching;
  watch_opened_ = last_heard_ = now;
  heard_ = false;
  const auto span = settings_.watch_timeout_max - settings_.watch_timeout_min;
  const Duration timeout =
      settings_.watch_timeout_min + std::chrono::duration_cast<Duration>(span * std::clamp(chance, 0.0, 1.0));
  return {OpenWatch{resource_version_, timeout}, Sleep{settings_.idle_limit}};
}

Reflector::Actions Reflector::back_off(bool relist, std::optional<Duration> at_least, Instant now, double chance) {
  if (healthy_since_ && now - *healthy_since_ >= settings_.backoff_reset) failures_ = 0;
  healthy_since_.reset();
  state_ = State::kBackingOff;
  relist_ = relist;
  Duration wait = settings_.backoff_first;
  for (int i = 0; i < failures_ && wait < settings_.backoff_limit; ++i) wait *= 2;
  ++failures_;
  wait = std::min(wait, settings_.backoff_limit);
  // Jitter 1.0: between once and twice the time, so that clients don't come back together.
  wait += std::chrono::duration_cast<Duration>(wait * std::clamp(chance, 0.0, 1.0));
  wait = std::min(wait, settings_.backoff_limit);
  if (at_least) wait = std::max(wait, *at_least);
  return {Sleep{wait}};
}

Reflector::Actions Reflector::on_page(const Page& page, Instant now, double chance) {
  if (state_ != State::kListing) return {};
  if (!page.continue_token.empty()) return {SendList{list_version_, page.continue_token, settings_.page_size, false}};
  // A list without a version can't be watched from: what would follow is not in order.
  if (page.resource_version.empty() || page.resource_version == "0") return back_off(true, {}, now, chance);
  listed_ = true;
  resource_version_ = page.resource_version;
  healthy_since_ = now;
  Actions actions{FinishList{}};
  for (Action& action : watch(now, chance)) actions.push_back(std::move(action));
  return actions;
}

Reflector::Actions Reflector::on_list_failed(const Error& error, Instant now, double chance) {
  if (state_ != State::kListing) return {};
  const bool too_old = error.code == Code::kGone;
  // A server whose cache is behind what we have seen, or another server after a restore.
  const bool too_new =
      error.code == Code::kDeadlineExceeded && error.message.find("Too large resource version") != std::string::npos;
  if ((too_old || too_new) && !paging_restarted_) {
    Actions actions = list(true, now, chance);
    paging_restarted_ = true;  // at once, but once
    return actions;
  }
  return back_off(true, error.retry_after, now, chance);
}

Reflector::Actions Reflector::on_doubted(Instant now, double chance) {
  if (state_ != State::kWatching) return {};
  Actions actions = watch(now, chance);
  actions.insert(actions.begin(), CloseWatch{});
  return actions;
}

Reflector::Actions Reflector::expired(Instant now, double chance) {
  // A watch that expires without having said anything, again and again, must not become a hot loop.
  if (!heard_ && now - watch_opened_ < settings_.short_watch && failures_ > 0) return back_off(true, {}, now, chance);
  ++failures_;
  return list(false, now, chance);
}

Reflector::Actions Reflector::on_event(const Event& event, Instant now, double chance) {
  if (state_ == State::kStreaming) return on_streamed(event, now, chance);
  if (state_ != State::kWatching) return {};
  last_heard_ = now;
  if (!healthy_since_ && event.type != WatchEventType::kError) healthy_since_ = now;
  switch (event.type) {
    case WatchEventType::kAdded:
    case WatchEventType::kModified:
    case WatchEventType::kDeleted:
      heard_ = true;
      if (!event.resource_version.empty()) resource_version_ = event.resource_version;
      return {Deliver{}};
    case WatchEventType::kBookmark:
      heard_ = true;
      if (!event.resource_version.empty()) resource_version_ = event.resource_version;
      return {};
    case WatchEventType::kError: {
      Actions actions{CloseWatch{}};
      const Error error = event.error.value_or(Error(Code::kInternal, "the watch failed without a reason"));
      Actions next = error.code == Code::kGone
                         ? expired(now, chance)
                         : back_off(error.code != Code::kTooManyRequests, error.retry_after, now, chance);
      for (Action& action : next) actions.push_back(std::move(action));
      return actions;
    }
    case WatchEventType::kUnknown:
      return {};
  }
  return {};
}

Reflector::Actions Reflector::on_watch_ended(const Status& status, Instant now, double chance) {
  if (state_ == State::kStreaming) {
    return stream_refused(status ? Error(Code::kUnavailable, "the watch ended before its mark") : status.error(), now,
                          chance);
  }
  if (state_ != State::kWatching) return {};
  if (!status) {
    const Error& error = status.error();
    if (error.code == Code::kGone) return expired(now, chance);
    const bool relist = !keeps_version(error.code) || failures_ >= kTriesBeforeRelist;
    return back_off(relist, error.retry_after, now, chance);
  }
  const Duration lived = now - watch_opened_;
  if (!heard_ && lived < settings_.short_watch) return back_off(false, {}, now, chance);
  if (!healthy_since_) healthy_since_ = now;
  if (now - *healthy_since_ >= settings_.backoff_reset) failures_ = 0;
  return watch(now, chance);
}

Reflector::Actions Reflector::on_woken(Instant now, double chance) {
  switch (state_) {
    case State::kBackingOff:
      return relist_ ? list(false, now, chance) : watch(now, chance);
    case State::kWatching: {
      const Duration silent = now - last_heard_;
      if (silent < settings_.idle_limit) return {Sleep{settings_.idle_limit - silent}};
      Actions actions{CloseWatch{}};
      // A new connection, from the same version; if that can't be had either, its failure backs off.
      for (Action& action : watch(now, chance)) actions.push_back(std::move(action));
      return actions;
    }
    case State::kStreaming:
      if (now - last_heard_ < settings_.idle_limit) return {Sleep{settings_.idle_limit - (now - last_heard_)}};
      return stream_refused(Error(Code::kUnavailable, "silence"), now, chance);
    case State::kIdle:
    case State::kListing:
      return {};
  }
  return {};
}

}  // namespace pitcrew::kube
