#include <map>

#include "lib/base/file.hpp"
#include "lib/base/yaml.hpp"
#include "lib/kube/config/cluster_config.hpp"
#include "lib/net/crypto.hpp"

namespace pitcrew::kube {
namespace {

constexpr uint64_t kMaxFile = 16 * 1024 * 1024;

// One of a kubeconfig's named lists over all files: name → the entry, and the folder its paths are relative to.
struct Entry {
  Json value;
  std::string folder;
};
using Entries = std::map<std::string, Entry>;

struct Merged {
  std::string current;
  Entries clusters;
  Entries users;
  Entries contexts;
};

void merge(const Json& document, const char* list, const char* member, const std::string& folder, Problems& problems,
           Entries& entries) {
  ObjectReader reader(document, "", problems);
  reader.each(list, [&](const Json& element, const std::string& path) {
    if (!element.is_object()) return problems.push_back({path, "must be an object with a name"});
    ObjectReader named(element, path, problems);
    std::string name;
    if (!named.read("name", name)) return named.problem("name", "is missing");
    const Json* value = named.raw(member);
    if (value == nullptr || !value->is_object()) return named.problem(member, "must be an object");
    entries.emplace(name, Entry{*value, folder});  // the first that says something counts
  });
}

Status merge_file(const std::string& path, const std::string& text, Merged& merged) {
  const std::string what = "kubeconfig " + path;
  auto documents = parse_yaml(text);
  if (!documents) return documents.error().with_context(what);
  if (documents->empty() || documents->front().json.is_null()) return {};
  const Json& document = documents->front().json;
  if (!document.is_object()) return Error(Code::kInvalidArgument, what + ": it is no kubeconfig");
  Problems problems;
  const std::string folder = folder_of(path);
  ObjectReader reader(document, "", problems);
  std::string current;
  reader.read("current-context", current);
  if (merged.current.empty()) merged.current = current;
  merge(document, "clusters", "cluster", folder, problems, merged.clusters);
  merge(document, "users", "user", folder, problems, merged.users);
  merge(document, "contexts", "context", folder, problems, merged.contexts);
  if (!problems.empty()) return Error(Code::kInvalidArgument, what + ": " + join(problems));
  return {};
}

std::string names_of(const Entries& entries) {
  std::string names;
  for (const auto& [name, entry] : entries) names += (names.empty() ? "" : ", ") + name;
  return names.empty() ? "none" : names;
}

std::string resolved(const std::string& folder, const std::string& path) {
  return path.empty() || path.front() == '/' ? path : join_path(folder, path);
}

void read_data(ObjectReader& reader, const char* key, std::string& pem) {
  std::string encoded;
  if (!reader.read(key, encoded) || encoded.empty()) return;
  std::string packed;
  for (const char c : encoded) {
    if (c != '\n' && c != '\r' && c != ' ') packed += c;
  }
  auto decoded = net::base64_decode(packed);
  if (!decoded) return reader.problem(key, "is no base64: " + decoded.error().message);
  pem = *std::move(decoded);
}

void read_path(ObjectReader& reader, const char* key, const std::string& folder, std::string& path) {
  if (reader.read(key, path)) path = resolved(folder, path);
}

void read_cluster(const Entry& entry, Problems& problems, ClusterConfig& config) {
  ObjectReader cluster(entry.value, "cluster", problems);
  if (!cluster.read("server", config.server)) cluster.problem("server", "is missing");
  cluster.read("tls-server-name", config.tls_server_name);
  cluster.read("insecure-skip-tls-verify", config.insecure_skip_tls_verify);
  read_path(cluster, "certificate-authority", entry.folder, config.ca_file);
  read_data(cluster, "certificate-authority-data", config.ca_pem);
  std::string proxy;
  if (cluster.read("proxy-url", proxy) && !proxy.empty()) {
    cluster.problem("proxy-url", "'" + proxy +
                                     "': proxies are not supported; reach the API server directly, or through "
                                     "`kubectl proxy` and its http:// address");
  }
}

void read_exec(ObjectReader& user, const std::string& folder, ClusterConfig& config) {
  auto reader = user.object("exec");
  if (!reader) return;
  ExecPlugin plugin;
  reader->read("apiVersion", plugin.api_version);
  if (!reader->read("command", plugin.command) || plugin.command.empty()) reader->problem("command", "is missing");
  if (plugin.command.find('/') != std::string::npos) plugin.command = resolved(folder, plugin.command);
  reader->read("args", plugin.args);
  reader->each("env", [&](const Json& element, const std::string& path) {
    if (!element.is_object()) return reader->problems().push_back({path, "must be an object with name and value"});
    ObjectReader variable(element, path, reader->problems());
    std::pair<std::string, std::string> pair;
    variable.read("name", pair.first);
    variable.read("value", pair.second);
    plugin.env.push_back(std::move(pair));
  });
  reader->read("installHint", plugin.install_hint);
  reader->read("provideClusterInfo", plugin.provide_cluster_info);
  std::string interactive;
  if (reader->read("interactiveMode", interactive) && interactive == "Always") {
    reader->problem("interactiveMode", "'Always' needs a person at a terminal; use a plugin that needs none");
  }
  config.exec = std::move(plugin);
}

void read_user(const Entry& entry, Problems& problems, ClusterConfig& config) {
  ObjectReader user(entry.value, "user", problems);
  read_path(user, "client-certificate", entry.folder, config.client_certificate_file);
  read_data(user, "client-certificate-data", config.client_certificate_pem);
  read_path(user, "client-key", entry.folder, config.client_key_file);
  read_data(user, "client-key-data", config.client_key_pem);
  user.read("token", config.token);
  read_path(user, "tokenFile", entry.folder, config.token_file);
  user.read("as", config.impersonate);
  user.read("as-groups", config.impersonate_groups);
  for (const char* gone : {"username", "password", "auth-provider"}) {
    if (user.has(gone)) user.problem(gone, "Kubernetes doesn't take it any more; use a token, a certificate or exec");
  }
  read_exec(user, entry.folder, config);
}

Result<ClusterConfig> select(const Merged& merged, const std::string& wanted, const std::string& paths) {
  const std::string what = "kubeconfig " + paths;
  const std::string name = wanted.empty() ? merged.current : wanted;
  if (name.empty()) {
    return Error(Code::kInvalidArgument,
                 what + ": there is no current context; name one of: " + names_of(merged.contexts));
  }
  const auto context = merged.contexts.find(name);
  if (context == merged.contexts.end()) {
    return Error(Code::kNotFound,
                 what + ": there is no context '" + name + "'; there are: " + names_of(merged.contexts));
  }
  ClusterConfig config;
  config.name = name;
  Problems problems;
  ObjectReader reader(context->second.value, "context", problems);
  std::string cluster_name;
  std::string user_name;
  reader.read("cluster", cluster_name);
  reader.read("user", user_name);
  std::string ns;
  if (reader.read("namespace", ns) && !ns.empty()) config.ns = ns;
  const auto cluster = merged.clusters.find(cluster_name);
  if (cluster == merged.clusters.end()) {
    return Error(Code::kNotFound, what + ": context '" + name + "' names the cluster '" + cluster_name +
                                      "', which isn't there; there are: " + names_of(merged.clusters));
  }
  read_cluster(cluster->second, problems, config);
  if (!user_name.empty()) {
    const auto user = merged.users.find(user_name);
    if (user == merged.users.end()) {
      return Error(Code::kNotFound, what + ": context '" + name + "' names the user '" + user_name +
                                        "', who isn't there; there are: " + names_of(merged.users));
    }
    read_user(user->second, problems, config);
  }
  if (!problems.empty()) return Error(Code::kInvalidArgument, what + ", context '" + name + "': " + join(problems));
  if (Status valid = config.validate(); !valid) return valid.error().with_context(what);
  return config;
}

}  // namespace

Result<ClusterConfig> load_kubeconfig(const std::string& paths, const std::string& context) {
  Merged merged;
  bool found = false;
  std::string_view rest = paths;
  while (!rest.empty()) {
    const std::string path(rest.substr(0, rest.find(':')));
    rest.remove_prefix(std::min(rest.size(), path.size() + 1));
    if (path.empty()) continue;
    auto text = read_file(posix_file_system(), path, kMaxFile);
    if (!text && text.error().code == Code::kNotFound) continue;
    if (!text) return text.error().with_context("kubeconfig");
    found = true;
    PITCREW_TRY(merge_file(path, *text, merged));
  }
  if (!found) return Error(Code::kNotFound, "kubeconfig " + paths + ": there is no such file");
  return select(merged, context, paths);
}

}  // namespace pitcrew::kube
