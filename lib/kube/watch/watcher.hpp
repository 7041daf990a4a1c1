#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/log.hpp"
#include "lib/base/loop.hpp"
#include "lib/base/random.hpp"
#include "lib/kube/watch/reflector.hpp"

namespace pitcrew::kube {

// Which objects of a type are watched.
struct WatchScope {
  std::string ns;  // empty: all
  std::string label_selector;
  std::string field_selector;
};

struct WatchMetrics {
  uint64_t lists = 0;
  uint64_t watches = 0;
  uint64_t events = 0;
  uint64_t bookmarks = 0;
  uint64_t errors = 0;   // failed lists and watches
  uint64_t expired = 0;  // 410, in either form
  uint64_t undecodable = 0;
};

// Resource versions are compared as numbers (KEP-5504).
std::optional<uint64_t> resource_version_number(const std::string& text);

// Carries out what a Reflector decides, on a Transport. Lives on a Loop; destroying it ends the watch.
class Watcher {
 public:
  struct Sink {
    std::function<void(std::vector<Payload> items)> on_list;  // everything there is, in the place of what was known
    std::function<void(WatchEventType type, const Payload& object)> on_event;  // kAdded, kModified or kDeleted
    std::function<void(const Payload& object)> reduce = {};                    // Request::reduce
  };

  Watcher(Loop& loop, Transport& transport, ResourceType type, uint64_t seed, WatchScope scope,
          ReflectorSettings settings, Logger log, Sink sink);
  ~Watcher();
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  void start();
  // Opens the watch again from where it is: for who must not act on what a dead connection left behind.
  void doubt() { step(Reflector::Doubted{}); }
  const std::string& resource_version() const { return reflector_.resource_version(); }
  const WatchMetrics& metrics() const { return metrics_; }
  void count_undecodable() { ++metrics_.undecodable; }

 private:
  void step(const Reflector::Input& input, const Payload* object = nullptr);
  void carry_out(const Reflector::SendList& list);
  void carry_out(const Reflector::OpenWatch& watch);
  void on_list_answer(Result<Response> answer);
  void on_watch_event(const WatchEvent& event);
  Request request(Verb verb) const;

  Loop& loop_;
  Transport& transport_;
  ResourceType type_;
  Random random_;
  WatchScope scope_;
  Logger log_;
  Sink sink_;
  Reflector reflector_;
  WatchMetrics metrics_;
  std::vector<Payload> pages_;
  CallPtr call_;
  Loop::TimerPtr timer_;
};

}  // namespace pitcrew::kube
