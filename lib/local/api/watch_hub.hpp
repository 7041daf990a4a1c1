#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/loop.hpp"
#include "lib/kube/transport/transport.hpp"
#include "lib/local/api/selector.hpp"

namespace pitcrew::local {

// The watches of one resource type and the history that lets a watch start in the past. Watches that ask for one node's
// or one name's objects are found by it, so that an event costs what it concerns. Owned by the API server; lives on its
// loop.
class WatchHub {
 public:
  struct Event {
    kube::WatchEventType type = kube::WatchEventType::kUnknown;
    uint64_t version = 0;
    kube::Payload object;  // of kDeleted: its last state, with this version
    kube::Payload old;     // before; empty for kAdded
  };

  struct Interest {
    std::string ns;
    Selector labels;
    Selector fields;
    bool bookmarks = false;
    Duration timeout{0};
    bool matches(const Json& object) const;
  };

  WatchHub(Loop& loop, const ResourceType& type, size_t history, Duration bookmark_every, const uint64_t& version);
  ~WatchHub();

  void publish(Event event);
  // Tells what happened after `since`, in order, then what comes. False where that is no longer known.
  bool open(uint64_t since, std::unique_ptr<kube::Call>& call, Interest interest, kube::Transport::WatchSink sink);
  // Tells `initial` as added first; with `mark_end` a bookmark says where they end.
  kube::CallPtr open(const std::vector<kube::Payload>& initial, bool mark_end, Interest interest,
                     kube::Transport::WatchSink sink);

  void compact();
  void close_all();
  size_t size() const;

 private:
  struct Watch;
  class Handle;
  using Watches = std::vector<std::shared_ptr<Watch>>;

  std::shared_ptr<Watch> add(Interest interest, kube::Transport::WatchSink sink);
  void remove(const std::shared_ptr<Watch>& watch);
  std::map<std::string, Watches>* routes_of(const Interest& interest, const std::string*& key);
  void dispatch(const Watches& watches, const Event& event, kube::Payload& leaving);
  void tell(Watch& watch, const Event& event, kube::Payload& leaving);
  void bookmark(Watch& watch, bool initial_end);
  void arm_bookmark(const std::shared_ptr<Watch>& watch);
  static void end(Watch& watch, Status status);

  Loop& loop_;
  const ResourceType& type_;
  size_t limit_;
  Duration bookmark_every_;
  const uint64_t& version_;  // the server's
  std::deque<Event> history_;
  uint64_t forgotten_ = 0;  // the newest version that is no longer in the history
  Watches general_;
  std::map<std::string, Watches> by_node_;
  std::map<std::string, Watches> by_name_;
  std::shared_ptr<WatchHub*> self_;
};

}  // namespace pitcrew::local
