#pragma once

#include <deque>
#include <functional>
#include <string>

#include "lib/base/loop.hpp"
#include "lib/base/object_meta.hpp"

namespace pitcrew::local {

// The time to live of one type's objects: each ends that long after it was written last. Owned by the store; lives on
// its loop, with one timer.
class Expiry {
 public:
  // An object's time is over, unless its version is another by now.
  using Expire = std::function<void(const ObjectKey& key, const std::string& version)>;

  Expiry(Loop& loop, Duration lifetime, Expire expire) : loop_(loop), lifetime_(lifetime), expire_(std::move(expire)) {}
  Expiry(const Expiry&) = delete;

  void written(const ObjectKey& key, std::string version);

 private:
  struct Due {
    Instant at;
    ObjectKey key;
    std::string version;
  };

  void arm();
  void expire();

  Loop& loop_;
  Duration lifetime_;
  Expire expire_;
  std::deque<Due> due_;  // all live equally long: the first was written first
  Loop::TimerPtr timer_;
};

}  // namespace pitcrew::local
