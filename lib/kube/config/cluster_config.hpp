#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/result.hpp"

namespace pitcrew::kube {

// A program that hands out credentials (client.authentication.k8s.io/v1 and v1beta1): `aws eks get-token` for instance.
struct ExecPlugin {
  std::string api_version;
  std::string command;
  std::vector<std::string> args;
  std::vector<std::pair<std::string, std::string>> env;  // added to the own environment
  std::string install_hint;
  bool provide_cluster_info = false;
};

// Where an API server is, whom to believe and who we are. Data (…_pem) counts before a file; files are read again as
// they change, for as long as a transport lives.
struct ClusterConfig {
  std::string name;             // for messages: the context, or "in-cluster"
  std::string server;           // https://host:port/prefix
  std::string tls_server_name;  // empty: the server's host
  bool insecure_skip_tls_verify = false;
  std::string ca_pem;  // neither: the system's roots
  std::string ca_file;
  std::string client_certificate_pem;
  std::string client_certificate_file;
  std::string client_key_pem;
  std::string client_key_file;
  std::string token;
  std::string token_file;  // counts before `token`
  std::optional<ExecPlugin> exec;
  std::string impersonate;
  std::vector<std::string> impersonate_groups;
  std::string ns = "default";  // of the context, or of the pod

  Status validate() const;
};

// The parts of a server's URL.
struct ServerUrl {
  bool tls = true;
  std::string host;  // a name or a numeric address, without brackets
  uint16_t port = 443;
  std::string prefix;  // "" or "/k8s/clusters/c-1"
};
Result<ServerUrl> parse_server_url(const std::string& url);

// The value of an environment variable, or null; tests put in their own.
using EnvironmentLookup = std::function<const char*(const char* name)>;
EnvironmentLookup process_environment();

// Reads kubeconfig files, separated by ':' as in KUBECONFIG; the first that says something counts, absent ones are
// passed over as long as one is there. An empty context means the current one.
Result<ClusterConfig> load_kubeconfig(const std::string& paths, const std::string& context = "");

// The identity that Kubernetes gives to a pod: KUBERNETES_SERVICE_HOST and _PORT, and the service account's folder.
Result<ClusterConfig> in_cluster(const EnvironmentLookup& environment = process_environment(),
                                 const std::string& folder = "/var/run/secrets/kubernetes.io/serviceaccount");

// What a program uses by default: the kubeconfig it was told (a flag), else KUBECONFIG, else the pod's identity, else
// ~/.kube/config.
Result<ClusterConfig> default_cluster(const std::string& kubeconfig = "", const std::string& context = "",
                                      const EnvironmentLookup& environment = process_environment());

}  // namespace pitcrew::kube
