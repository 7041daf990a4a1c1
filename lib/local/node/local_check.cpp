#include "lib/local/node/pod_files.hpp"

namespace pitcrew::local {
namespace {

class LocalCheck {
 public:
  Problems take() && { return std::move(problems_); }

  void check(const Json& pod_template) {
    if (!pod_template.contains("spec") || !pod_template["spec"].is_object()) return;
    const Json& spec = pod_template["spec"];
    for (const char* kind : {"initContainers", "containers"}) {
      each(spec, kind, [&](const Json& container, const std::string& path) { check_container(container, path); });
    }
    each(spec, "volumes", [&](const Json& volume, const std::string& path) { check_volume(volume, path); });
  }

 private:
  void add(std::string path, std::string message) {
    problems_.push_back({"spec.template.spec." + path, std::move(message)});
  }

  template <typename F>
  void each(const Json& object, const std::string& key, F&& f) {
    if (!object.contains(key) || !object[key].is_array()) return;
    size_t index = 0;
    for (const Json& element : object[key]) f(element, key + "[" + std::to_string(index++) + "]");
  }

  void check_container(const Json& container, const std::string& path) {
    if (!container.contains("command")) {
      add(path + ".command",
          "must be set: a local run pulls no image, so there is no entrypoint; name a program of this machine");
    }
    if (container.contains("resources")) {
      for (const char* kind : {"limits", "requests"}) {
        if (!container["resources"].contains(kind)) continue;
        for (const auto& [name, amount] : container["resources"][kind].items()) {
          if (name.find('/') == std::string::npos) continue;
          add(path + ".resources." + kind, "'" + name +
                                               "' can't be had in a local run, whose nodes have CPUs and memory alone; "
                                               "leave it out, or run on a cluster");
        }
      }
    }
    each(container, "env", [&](const Json& variable, const std::string& variable_path) {
      if (!variable.contains("valueFrom")) return;
      for (const char* source : {"secretKeyRef", "configMapKeyRef", "resourceFieldRef"}) {
        if (!variable["valueFrom"].contains(source)) continue;
        add(path + "." + variable_path,
            std::string(source) + " is not there in a local run; give the variable a `value`");
      }
    });
    if (container.contains("envFrom"))
      add(path + ".envFrom", "is not there in a local run; give the variables values under `env`");
  }

  void check_volume(const Json& volume, const std::string& path) {
    if (volume.contains("hostPath")) {
      add(path + ".hostPath",
          "is refused in a local run, which must not touch this machine's folders through a pod; use a "
          "persistentVolumeClaim: it becomes a folder below --dir");
    }
    for (const char* kind : {"secret", "configMap"}) {
      if (volume.contains(kind))
        add(path + "." + kind,
            "is not there in a local run; use a persistentVolumeClaim and put the files into its folder below --dir");
    }
    if (!volume.contains("projected")) return;
    each(volume["projected"], "sources", [&](const Json& source, const std::string& source_path) {
      for (const char* kind : {"secret", "configMap"}) {
        if (source.contains(kind))
          add(path + ".projected." + source_path, std::string(kind) + " is not there in a local run; leave it out");
      }
    });
  }

  Problems problems_;
};

}  // namespace

Problems check_runnable_locally(const Json& pod_template) {
  LocalCheck check;
  check.check(pod_template);
  return std::move(check).take();
}

}  // namespace pitcrew::local
