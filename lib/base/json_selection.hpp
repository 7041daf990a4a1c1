#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/base/json.hpp"

namespace pitcrew {

// Which members of a document somebody reads. A tree of names; lists are passed through: a name below a list is one of
// its elements'. Immutable.
class JsonSelection {
 public:
  // Paths with dots ("spec.containers.resources"); each keeps all that is below it.
  explicit JsonSelection(const std::vector<std::string_view>& paths);

  struct Node {
    std::string name;
    bool all = false;
    std::vector<Node> members;
    const Node* find(std::string_view name) const;  // null: nobody reads it
  };
  const Node& root() const { return root_; }

 private:
  Node root_;
};

// As parse_json(text), but what nobody reads is passed over by the SAX parser without being built. Repeated keys are
// found only among what is kept.
Result<Json> parse_json(std::string_view text, const JsonSelection& selection);

}  // namespace pitcrew
