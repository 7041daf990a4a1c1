#pragma once

#include <string>

namespace pitcrew::cli {

// A kubeconfig for a server at this URL, in namespace `team-a`, as somebody without credentials.
inline std::string kubeconfig_of(const std::string& server) {
  return "apiVersion: v1\nkind: Config\ncurrent-context: test\n"
         "clusters: [{name: test, cluster: {server: \"" +
         server +
         "\"}}]\n"
         "contexts: [{name: test, context: {cluster: test, user: test, namespace: team-a}}]\n"
         "users: [{name: test, user: {}}]\n";
}

}  // namespace pitcrew::cli
