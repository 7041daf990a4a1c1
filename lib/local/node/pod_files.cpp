#include "lib/local/node/pod_files.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <sys/stat.h>
#include <unistd.h>

#include "lib/api/launcher_contract.hpp"
#include "lib/base/time.hpp"
#include "lib/local/node/pod_text.hpp"

namespace pitcrew::local {
namespace {

namespace fs = std::filesystem;
namespace contract = api::launcher;

const Json& child(const Json& object, const char* key) {
  static const Json nothing;
  const auto found = object.find(key);
  return found == object.end() ? nothing : *found;
}

std::string text_of(const Json& object, const char* key) {
  const Json& value = child(object, key);
  return value.is_string() ? value.get<std::string>() : "";
}

// A file that readers never see half written; untouched where its text is the same.
Status write_file(const fs::path& path, const std::string& text, mode_t mode = 0644) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  {
    std::ifstream now(path, std::ios::binary);
    if (now && std::string(std::istreambuf_iterator<char>(now), {}) == text) return {};
  }
  const fs::path next = path.string() + ".new";
  {
    std::ofstream out(next, std::ios::binary | std::ios::trunc);
    out << text;
    if (!out.flush()) return errno_error("writing " + next.string(), errno);
  }
  ::chmod(next.c_str(), mode);
  fs::rename(next, path, error);
  if (error) return Error(Code::kUnavailable, "renaming " + next.string() + ": " + error.message());
  return {};
}

Status make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return Error(Code::kUnavailable, "making the folder " + path.string() + ": " + error.message());
  return {};
}

bool in_memory(const Json& volume) { return text_of(child(volume, "emptyDir"), "medium") == "Memory"; }

template <typename F>
Status each_source(const Json& volume, F&& f) {
  const Json& sources = child(child(volume, "projected"), "sources");
  if (!sources.is_array()) return {};
  for (const Json& source : sources) PITCREW_TRY(f(source));
  return {};
}

}  // namespace

PodFiles::PodFiles(PodFilesSettings settings, const Json& pod, PodFacts facts)
    : settings_(std::move(settings)), pod_(pod), facts_(std::move(facts)) {
  const Json& volumes = child(child(pod_, "spec"), "volumes");
  if (!volumes.is_array()) return;
  for (const Json& volume : volumes) folders_[text_of(volume, "name")] = folder_of(volume);
}

std::string PodFiles::folder_of(const Json& volume) const {
  const std::string name = text_of(volume, "name");
  const std::string uid = text_of(child(pod_, "metadata"), "uid");
  if (in_memory(volume)) return settings_.memory_folder + "/" + uid + "/" + name;
  const bool own = volume.contains("emptyDir") || volume.contains("downwardAPI") || volume.contains("projected");
  if (own) return settings_.pods_folder + "/" + uid + "/" + name;
  const std::string claim = text_of(child(volume, "persistentVolumeClaim"), "claimName");
  return settings_.volumes_folder + "/" + (claim.empty() ? name : claim);
}

Status PodFiles::make(const TokenSource& tokens, bool fresh_memory) {
  const Json& volumes = child(child(pod_, "spec"), "volumes");
  if (volumes.is_array()) {
    for (const Json& volume : volumes) {
      const std::string& folder = folders_.at(text_of(volume, "name"));
      std::error_code ignored;
      if (fresh_memory && in_memory(volume)) fs::remove_all(folder, ignored);
      PITCREW_TRY(make_folder(folder));
    }
  }
  PITCREW_TRY(make_folder(settings_.logs_folder + "/" + text_of(child(pod_, "metadata"), "name")));
  PITCREW_TRY(refresh(pod_));
  return refresh_tokens(tokens);
}

Status PodFiles::refresh(const Json& pod) {
  pod_ = pod;
  const Json& volumes = child(child(pod_, "spec"), "volumes");
  if (!volumes.is_array()) return {};
  for (const Json& volume : volumes) {
    const std::string& folder = folders_.at(text_of(volume, "name"));
    PITCREW_TRY(write_downward(child(child(volume, "downwardAPI"), "items"), folder));
    PITCREW_TRY(each_source(volume, [&](const Json& source) {
      return write_downward(child(child(source, "downwardAPI"), "items"), folder);
    }));
  }
  return {};
}

Status PodFiles::write_downward(const Json& items, const std::string& folder) const {
  if (!items.is_array()) return {};
  for (const Json& item : items) {
    PITCREW_ASSIGN(const std::string text, field(text_of(child(item, "fieldRef"), "fieldPath")));
    PITCREW_TRY(write_file(fs::path(folder) / text_of(item, "path"), text));
  }
  return {};
}

Status PodFiles::refresh_tokens(const TokenSource& tokens) {
  const Json& volumes = child(child(pod_, "spec"), "volumes");
  if (!volumes.is_array()) return {};
  for (const Json& volume : volumes) {
    PITCREW_TRY(each_source(volume, [&](const Json& source) -> Status {
      const Json& wanted = child(source, "serviceAccountToken");
      if (!wanted.is_object()) return {};
      const std::string token = tokens(text_of(wanted, "audience"), seconds(wanted.value("expirationSeconds", 3600)));
      return write_file(fs::path(folders_.at(text_of(volume, "name"))) / text_of(wanted, "path"), token, 0600);
    }));
  }
  return {};
}

std::optional<Duration> PodFiles::token_life() const {
  std::optional<Duration> life;
  const Json& volumes = child(child(pod_, "spec"), "volumes");
  if (!volumes.is_array()) return life;
  for (const Json& volume : volumes) {
    (void)each_source(volume, [&](const Json& source) -> Status {
      const Json& wanted = child(source, "serviceAccountToken");
      if (!wanted.is_object()) return {};
      const Duration this_life = seconds(wanted.value("expirationSeconds", 3600)) * 8 / 10;
      life = std::min(life.value_or(this_life), this_life);
      return {};
    });
  }
  return life;
}

void PodFiles::remove() {
  std::error_code ignored;
  const std::string uid = text_of(child(pod_, "metadata"), "uid");
  if (uid.empty()) return;
  fs::remove_all(settings_.pods_folder + "/" + uid, ignored);
  fs::remove_all(settings_.memory_folder + "/" + uid, ignored);
}

std::string PodFiles::local_path(const Json& mount) const {
  const auto folder = folders_.find(text_of(mount, "name"));
  if (folder == folders_.end()) return "";
  const std::string sub = text_of(mount, "subPath");
  return sub.empty() ? folder->second : folder->second + "/" + sub;
}

std::map<std::string, std::string> PodFiles::path_map(const Json& container) const {
  std::map<std::string, std::string> paths;
  const Json& mounts = child(container, "volumeMounts");
  if (!mounts.is_array()) return paths;
  for (const Json& mount : mounts) {
    std::string path = text_of(mount, "mountPath");
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    const std::string local = local_path(mount);
    if (path.size() > 1 && !local.empty()) paths[path] = local;
  }
  return paths;
}

// Field paths of the downward API: https://kubernetes.io/docs/concepts/workloads/pods/downward-api/
Result<std::string> PodFiles::field(const std::string& path) const {
  const Json& metadata = child(pod_, "metadata");
  if (path == "metadata.name" || path == "metadata.namespace" || path == "metadata.uid")
    return text_of(metadata, path.c_str() + 9);
  if (path == "spec.nodeName") return facts_.node;
  if (path == "spec.serviceAccountName") {
    const std::string account = text_of(child(pod_, "spec"), "serviceAccountName");
    return account.empty() ? std::string("default") : account;
  }
  if (path == "status.podIP" || path == "status.podIPs") return facts_.pod_ip;
  if (path == "status.hostIP" || path == "status.hostIPs") return facts_.host_ip;
  for (const char* kind : {"labels", "annotations"}) {
    const std::string whole = std::string("metadata.") + kind;
    if (path == whole) {
      std::string text;
      for (const auto& [key, value] : child(metadata, kind).items()) text += key + "=" + value.dump() + "\n";
      return text;
    }
    if (path.starts_with(whole + "['") && path.ends_with("']")) {
      const std::string key = path.substr(whole.size() + 2, path.size() - whole.size() - 4);
      return text_of(child(metadata, kind), key.c_str());
    }
  }
  return Error(Code::kUnsupported, "the field '" + path + "' is not known to the downward API of a local run");
}

Result<std::map<std::string, std::string>> PodFiles::environment(
    const Json& container, const std::map<std::string, std::string>& paths) const {
  std::map<std::string, std::string> env = settings_.base_env;
  std::string path;
  for (const std::string& folder : settings_.path) path += folder + ":";
  env["PATH"] = path + (env.contains("PATH") ? env["PATH"] : "/usr/local/bin:/usr/bin:/bin");
  const Json& variables = child(container, "env");
  if (variables.is_array()) {
    for (const Json& variable : variables) {
      const Json& from = child(variable, "valueFrom");
      std::string value = map_paths(expand_variables(text_of(variable, "value"), env), paths);
      if (from.contains("fieldRef")) {
        PITCREW_ASSIGN(value, field(text_of(from["fieldRef"], "fieldPath")));
      }
      env[text_of(variable, "name")] = value;
    }
  }
  env[contract::kPathMap] = Json(paths).dump();
  if (!paths.contains(contract::kBinaryFolder)) return env;
  env[contract::kChannelFileVariable] = map_paths(contract::kChannelFile, paths);
  env[contract::kTokenFileVariable] = map_paths(contract::kTokenFile, paths);
  env[contract::kRunFolderVariable] = map_paths(contract::kRunFolder, paths);
  if (paths.contains(contract::kMemoryFolder)) env[contract::kMemoryFolderVariable] = paths.at(contract::kMemoryFolder);
  env[contract::kRankLogs] = settings_.logs_folder + "/" + text_of(child(pod_, "metadata"), "name");
  return env;
}

Result<ContainerSpec> PodFiles::container(const Json& container, const std::string& id) const {
  const Json& metadata = child(pod_, "metadata");
  ContainerSpec spec;
  spec.id = id;
  spec.ns = text_of(metadata, "namespace");
  spec.pod_name = text_of(metadata, "name");
  spec.pod_uid = text_of(metadata, "uid");
  spec.container = text_of(container, "name");
  const auto paths = path_map(container);
  PITCREW_ASSIGN(spec.env, environment(container, paths));
  for (const char* part : {"command", "args"}) {
    const Json& words = child(container, part);
    if (!words.is_array()) continue;
    for (const Json& word : words) {
      if (word.is_string()) spec.argv.push_back(map_paths(expand_variables(word.get<std::string>(), spec.env), paths));
    }
  }
  if (!child(container, "command").is_array() || spec.argv.empty()) {
    return Error(Code::kInvalidArgument,
                 "container '" + spec.container +
                     "' names no command, and no image is pulled that could have one; set `command`");
  }
  const std::string folder = text_of(container, "workingDir");
  spec.folder = folder.empty() ? settings_.working_folder : map_paths(folder, paths);
  for (const auto& [mount, local] : paths) PITCREW_TRY(make_folder(local));
  spec.log_file = settings_.logs_folder + "/" + spec.pod_name + "/" + spec.container + ".log";
  return spec;
}

Status PodFiles::install_launcher() const {
  const Json& inits = child(child(pod_, "spec"), "initContainers");
  if (!inits.is_array()) return {};
  for (const Json& init : inits) {
    if (text_of(init, "name") != contract::kInitContainer) continue;
    const std::string target = map_paths(contract::kBinary, path_map(init));
    std::error_code error;
    fs::remove(target, error);
    fs::create_symlink(settings_.launcher_binary, target, error);
    if (error)
      return Error(Code::kUnavailable,
                   "linking the launcher " + settings_.launcher_binary + " to " + target + ": " + error.message());
  }
  return {};
}

}  // namespace pitcrew::local
