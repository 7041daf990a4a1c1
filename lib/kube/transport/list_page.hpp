#pragma once

#include <string>
#include <vector>

#include "lib/kube/transport/transport.hpp"

namespace pitcrew::kube {

// One page of a list, its items apart.
struct ListPage {
  std::vector<Payload> items;
  std::string resource_version;
  std::string continue_token;
};

// Takes the answer to a list apart; an error where it isn't one.
Result<ListPage> split_list(Response response);

}  // namespace pitcrew::kube
