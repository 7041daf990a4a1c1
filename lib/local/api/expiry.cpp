#include "lib/local/api/expiry.hpp"

namespace pitcrew::local {

void Expiry::written(const ObjectKey& key, std::string version) {
  due_.push_back({loop_.now() + lifetime_, key, std::move(version)});
  if (due_.size() == 1) arm();
}

void Expiry::arm() {
  timer_ = loop_.after(due_.front().at - loop_.now(), [this] { expire(); });
}

void Expiry::expire() {
  while (!due_.empty() && due_.front().at <= loop_.now()) {
    const Due due = std::move(due_.front());
    due_.pop_front();
    expire_(due.key, due.version);
  }
  if (!due_.empty()) arm();
}

}  // namespace pitcrew::local
