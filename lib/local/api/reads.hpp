#pragma once

#include <map>
#include <vector>

#include "lib/local/api/store.hpp"

namespace pitcrew::local {

// Get, list in pages, and watch.
class Reads {
 public:
  Reads(Loop& loop, Store& store, const ApiServerSettings& settings)
      : loop_(loop), store_(store), settings_(settings) {}

  kube::Response get(Store::Type& type, const kube::Request& request);
  kube::Response list(Store::Type& type, const kube::Request& request);
  Result<kube::CallPtr> watch(Store::Type& type, const kube::Request& request, kube::Transport::WatchSink sink);
  void drop_pages() { pages_.clear(); }

 private:
  // A list that is handed out in pages, all of one moment.
  struct Pages {
    std::vector<kube::Payload> items;
    uint64_t version = 0;
    Instant expires;
  };

  kube::Response next_page(Store::Type& type, const std::string& token, uint64_t limit);
  kube::Response page_of(Store::Type& type, uint64_t id, const Pages& pages, uint64_t offset, uint64_t limit);
  void drop_expired_pages();

  Loop& loop_;
  Store& store_;
  const ApiServerSettings& settings_;
  std::map<uint64_t, Pages> pages_;
  uint64_t next_pages_ = 0;
};

}  // namespace pitcrew::local
