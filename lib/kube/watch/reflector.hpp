#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lib/base/result.hpp"
#include "lib/base/time.hpp"
#include "lib/kube/transport/transport.hpp"

namespace pitcrew::kube {

struct ReflectorSettings {
  uint32_t page_size = 500;
  // Asks for the first objects as events of the watch (KEP-3157): costs the server a small part of a list. Where it is
  // refused, lists are used from then on.
  bool streaming_list = false;
  Duration watch_timeout_min = seconds(300);  // the server is asked to end a watch after a random time between the two
  Duration watch_timeout_max = seconds(600);
  Duration idle_limit = seconds(90);  // silence on a watch beyond its bookmarks: the connection is taken for dead
  Duration short_watch = seconds(1);  // a watch that ends sooner, without an event, is an error
  Duration backoff_first = milliseconds(800);
  Duration backoff_limit = seconds(30);
  Duration backoff_reset = minutes(2);  // of health
};

// The list-and-watch loop as a step function: what happened goes in, what to do comes out; no I/O, clock or chance
// inside (client-go's policies, kube-rs's shape).
//
//   kListing → pages arrive → kWatching → the stream ends → kWatching again from the last version, or kListing after a
//   410; with a streaming list kStreaming → its end is marked → kWatching, on the same stream
class Reflector {
 public:
  // ---- what happened ----
  struct Started {};
  struct Page {  // of the list that SendList asked for
    std::string resource_version;
    std::string continue_token;
    bool first = false;
  };
  struct ListFailed {
    Error error;
  };
  struct Event {  // of the watch; its object's version, and of kError what it means
    WatchEventType type = WatchEventType::kUnknown;
    std::string resource_version;
    std::optional<Error> error;
    bool initial_end = false;  // the bookmark after the first objects
  };
  struct WatchEnded {
    Status status;
  };
  struct Woken {};    // the timer that Sleep asked for
  struct Doubted {};  // the watch may be dead without anybody having noticed: it is opened again
  using Input = std::variant<Started, Page, ListFailed, Event, WatchEnded, Woken, Doubted>;

  // ---- what to do, in this order ----
  struct SendList {
    std::string resource_version;  // "0": any; "": the newest; else not older than this
    std::string continue_token;
    uint32_t limit = 0;    // 0: no paging
    bool restart = false;  // the first page of a list: forget the pages before
  };
  struct FinishList {};  // all pages are there: put them in the place of what was known, what vanished is deleted
  struct Deliver {};     // the event that came in changes an object
  struct Collect {};     // the event that came in is one more object of the list that FinishList ends
  struct OpenWatch {
    std::string resource_version;
    Duration timeout{0};   // for the server
    bool initial = false;  // with the first objects as events: forget those collected before
  };
  struct CloseWatch {};
  struct Sleep {  // replaces an earlier Sleep; input Woken after it
    Duration duration{0};
  };
  using Action = std::variant<SendList, FinishList, Deliver, Collect, OpenWatch, CloseWatch, Sleep>;

  enum class State { kIdle, kListing, kStreaming, kWatching, kBackingOff };

  explicit Reflector(ReflectorSettings settings = {}) : settings_(settings) {}

  // `chance` is uniform in [0, 1): the jitter.
  std::vector<Action> step(const Input& input, Instant now, double chance);

  State state() const { return state_; }
  bool listed() const { return listed_; }
  // The version up to which everything has been delivered.
  const std::string& resource_version() const { return resource_version_; }

 private:
  using Actions = std::vector<Action>;
  Actions list(bool after_expiry, Instant now, double chance);
  Actions stream(Instant now, double chance);
  Actions stream_refused(const Error& error, Instant now, double chance);
  Actions on_streamed(const Event& event, Instant now, double chance);
  Actions watch(Instant now, double chance);
  Actions back_off(bool relist, std::optional<Duration> at_least, Instant now, double chance);
  Actions on_page(const Page& page, Instant now, double chance);
  Actions on_list_failed(const Error& error, Instant now, double chance);
  Actions on_event(const Event& event, Instant now, double chance);
  Actions on_watch_ended(const Status& status, Instant now, double chance);
  Actions on_woken(Instant now, double chance);
  Actions on_doubted(Instant now, double chance);
  Actions expired(Instant now, double chance);

  ReflectorSettings settings_;
  State state_ = State::kIdle;
  bool listed_ = false;  // a whole list has been delivered
  bool relist_ = true;   // after backing off: list, else watch
  bool streams_ = true;  // streaming lists have not been refused
  bool newest_ = false;  // the next list asks for the newest version: older ones have expired
  bool paging_restarted_ = false;
  std::string list_version_;  // that the running list asked for
  std::string resource_version_;
  Instant watch_opened_;
  Instant last_heard_;
  bool heard_ = false;  // an event on this watch
  int failures_ = 0;
  std::optional<Instant> healthy_since_;
};

}  // namespace pitcrew::kube
