#include "cli/connect/leading_flags.hpp"

#include <algorithm>
#include <array>
#include <string_view>

namespace pitcrew::cli {
namespace {

constexpr std::array<std::string_view, 5> kFlags = {"-n", "--namespace", "--kubeconfig", "--context", "--color"};

}  // namespace

std::vector<std::string> with_flags_behind(std::vector<std::string> words) {
  auto at = words.begin();
  while (at != words.end()) {
    const size_t sign = at->find('=');
    const bool known = std::find(kFlags.begin(), kFlags.end(), std::string_view(*at).substr(0, sign)) != kFlags.end();
    if (!known) break;
    ++at;
    if (sign == std::string::npos && at != words.end()) ++at;
  }
  // Without a command behind them, or before words that belong to somebody else, they stay.
  if (at != words.end() && std::find(at, words.end(), "--") == words.end()) std::rotate(words.begin(), at, words.end());
  return words;
}

ClusterFlags cluster_flags_in(const std::vector<std::string>& words) {
  ClusterFlags flags;
  for (size_t i = 0; i < words.size(); ++i) {
    const size_t sign = words[i].find('=');
    const std::string name = words[i].substr(0, sign);
    const std::string value = sign != std::string::npos ? words[i].substr(sign + 1)
                              : i + 1 < words.size()    ? words[i + 1]
                                                        : "";
    if (name == "-n" || name == "--namespace") flags.ns = value;
    if (name == "--context") flags.context = value;
    if (name == "--kubeconfig") flags.kubeconfig = value;
  }
  return flags;
}

}  // namespace pitcrew::cli
