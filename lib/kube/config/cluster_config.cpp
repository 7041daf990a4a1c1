#include "lib/kube/config/cluster_config.hpp"

#include <charconv>
#include <cstdlib>

#include <unistd.h>

#include "lib/base/file.hpp"

namespace pitcrew::kube {
namespace {

constexpr uint64_t kMaxFile = 1024 * 1024;

bool readable(const std::string& path) { return ::access(path.c_str(), R_OK) == 0; }

std::string trimmed(std::string text) {
  const size_t end = text.find_last_not_of(" \t\r\n");
  text.resize(end == std::string::npos ? 0 : end + 1);
  return text;
}

std::string value_of(const EnvironmentLookup& environment, const char* name) {
  const char* value = environment(name);
  return value == nullptr ? "" : value;
}

}  // namespace

EnvironmentLookup process_environment() {
  return [](const char* name) -> const char* { return std::getenv(name); };
}

Result<ServerUrl> parse_server_url(const std::string& url) {
  const auto wrong = [&](std::string_view why) {
    return Error(Code::kInvalidArgument,
                 "server '" + url + "': " + std::string(why) + "; write https://host:port, or https://[::1]:6443");
  };
  ServerUrl parsed;
  std::string_view rest = url;
  if (rest.rfind("https://", 0) == 0) {
    rest.remove_prefix(8);
  } else if (rest.rfind("http://", 0) == 0) {
    rest.remove_prefix(7);
    parsed.tls = false;
    parsed.port = 80;
  } else {
    return wrong("it begins with neither https:// nor http://");
  }
  const size_t slash = rest.find('/');
  std::string_view place = rest.substr(0, slash);
  if (slash != std::string_view::npos) parsed.prefix = rest.substr(slash);
  if (parsed.prefix.find_first_of("?#") != std::string::npos) return wrong("it has a query");
  while (!parsed.prefix.empty() && parsed.prefix.back() == '/') parsed.prefix.pop_back();
  if (place.find('@') != std::string_view::npos) return wrong("it has a user name in it, which is not sent");
  std::string_view port;
  if (!place.empty() && place.front() == '[') {
    const size_t end = place.find(']');
    if (end == std::string_view::npos) return wrong("a bracket is missing");
    parsed.host = place.substr(1, end - 1);
    port = place.substr(end + 1);
    if (!port.empty() && port.front() != ':') return wrong("what follows the bracket is no port");
  } else {
    const size_t colon = place.find(':');
    if (colon != std::string_view::npos && place.find(':', colon + 1) != std::string_view::npos)
      return wrong("an IPv6 address needs brackets");
    parsed.host = place.substr(0, colon);
    if (colon != std::string_view::npos) port = place.substr(colon);
  }
  if (parsed.host.empty()) return wrong("the host is missing");
  if (!port.empty()) {
    port.remove_prefix(1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), parsed.port);
    if (error != std::errc() || end != port.data() + port.size() || parsed.port == 0)
      return wrong("the port is no number up to 65535");
  }
  return parsed;
}

Status ClusterConfig::validate() const {
  const auto wrong = [this](const std::string& what) {
    return Error(Code::kInvalidArgument, "cluster '" + name + "': " + what);
  };
  auto url = parse_server_url(server);
  if (!url) return url.error().with_context("cluster '" + name + "'");
  const bool certificate = !client_certificate_pem.empty() || !client_certificate_file.empty();
  const bool key = !client_key_pem.empty() || !client_key_file.empty();
  if (certificate != key) return wrong("a client certificate and its key belong together; one of them is missing");
  if (!url->tls && (certificate || !token.empty() || !token_file.empty() || exec)) {
    return wrong("credentials are not sent over http://; use https://, or leave them out");
  }
  if (insecure_skip_tls_verify && (!ca_pem.empty() || !ca_file.empty())) {
    return wrong("insecure-skip-tls-verify and a certificate authority contradict each other; remove one");
  }
  if (exec && exec->api_version != "client.authentication.k8s.io/v1" &&
      exec->api_version != "client.authentication.k8s.io/v1beta1") {
    return wrong("exec plugin '" + exec->command + "': apiVersion '" + exec->api_version +
                 "' is not served any more; write client.authentication.k8s.io/v1beta1 (for EKS: aws eks "
                 "update-kubeconfig writes it anew)");
  }
  return {};
}

Result<ClusterConfig> in_cluster(const EnvironmentLookup& environment, const std::string& folder) {
  const std::string host = value_of(environment, "KUBERNETES_SERVICE_HOST");
  const std::string port = value_of(environment, "KUBERNETES_SERVICE_PORT");
  if (host.empty() || port.empty()) {
    return Error(Code::kNotFound,
                 "in-cluster configuration: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; outside "
                 "of a pod give a kubeconfig");
  }
  ClusterConfig config;
  config.name = "in-cluster";
  const bool v6 = host.find(':') != std::string::npos;
  config.server = "https://" + (v6 ? "[" + host + "]" : host) + ":" + port;
  config.token_file = join_path(folder, "token");
  config.ca_file = join_path(folder, "ca.crt");
  for (const std::string& path : {config.token_file, config.ca_file}) {
    if (!readable(path)) {
      return Error(Code::kNotFound, "in-cluster configuration: " + path +
                                        " can't be read; has the pod a service account, and is "
                                        "automountServiceAccountToken not false?");
    }
  }
  auto ns = read_file(posix_file_system(), join_path(folder, "namespace"), kMaxFile);
  if (ns) config.ns = trimmed(*std::move(ns));
  PITCREW_TRY(config.validate());
  return config;
}

Result<ClusterConfig> default_cluster(const std::string& kubeconfig, const std::string& context,
                                      const EnvironmentLookup& environment) {
  if (!kubeconfig.empty()) return load_kubeconfig(kubeconfig, context);
  if (const std::string paths = value_of(environment, "KUBECONFIG"); !paths.empty())
    return load_kubeconfig(paths, context);
  if (!value_of(environment, "KUBERNETES_SERVICE_HOST").empty() && context.empty()) return in_cluster(environment);
  const std::string home = value_of(environment, "HOME");
  const std::string usual = join_path(home, ".kube/config");
  if (!home.empty() && readable(usual)) return load_kubeconfig(usual, context);
  return Error(Code::kNotFound, "no cluster: there is no --kubeconfig, no KUBECONFIG, no pod's identity and no " +
                                    usual + "; give one of them");
}

}  // namespace pitcrew::kube
