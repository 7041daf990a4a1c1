#include <algorithm>

#include "lib/api/launcher_contract.hpp"
#include "lib/local/node/kubelet.hpp"
#include "lib/local/node/kubelet_state.hpp"

namespace pitcrew::local {
namespace {

constexpr Duration kRetry = seconds(1);
constexpr Duration kVolumeRetry = seconds(10);

std::string text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

Json termination(const ContainerExit& exit, Instant started, Instant now) {
  std::string reason = exit.exit_code == 0 ? "Completed" : "Error";
  if (exit.oom) reason = "OOMKilled";
  if (exit.start_failed) reason = "StartError";
  Json json{{"exitCode", exit.exit_code},
            {"reason", reason},
            {"startedAt", to_rfc3339(started)},
            {"finishedAt", to_rfc3339(now)}};
  if (exit.signal != 0) json["signal"] = exit.signal;
  if (!exit.message.empty()) json["message"] = exit.message;
  return json;
}

Json condition(const char* type, bool value, const std::string& time) {
  return {{"type", type}, {"status", value ? "True" : "False"}, {"lastTransitionTime", time}};
}

}  // namespace

std::unique_ptr<Kubelet::PodState> Kubelet::new_pod(const Json& object) {
  auto pod = std::make_unique<PodState>();
  const Json& metadata = object["metadata"];
  pod->uid = metadata.value("uid", "");
  pod->key = {metadata.value("namespace", ""), metadata.value("name", "")};
  pod->object = object;
  pod->ip = free_ip();
  pod->start_time = loop_.now();
  const Json& spec = object["spec"];
  pod->restart_policy = spec.value("restartPolicy", "Always");
  for (const char* kind : {"initContainers", "containers"}) {
    if (!spec.contains(kind)) continue;
    for (const Json& container : spec[kind]) {
      auto state = std::make_unique<ContainerState>();
      state->spec = container;
      state->name = container.value("name", "");
      state->init = std::string_view(kind) == "initContainers";
      state->sidecar = state->init && container.value("restartPolicy", "") == "Always";
      pod->containers.push_back(std::move(state));
    }
  }
  // Ended before this kubelet was started.
  const std::string phase = object.contains("status") ? text_of(object["status"], "phase") : "";
  if (phase == "Succeeded" || phase == "Failed") {
    pod->phase = phase;
    pod->finished = true;
  }
  if (settings_.files)
    pod->files.emplace(*settings_.files, object, PodFacts{pod->ip, settings_.node_ip, settings_.node});
  return pod;
}

// The node went off: after the next boot the pod's containers start anew, init containers included, with empty memory
// volumes.
void Kubelet::lose_containers(PodState& pod) {
  pod.fresh_memory = true;
  pod.started = false;
  pod.grace.reset();
  pod.tokens.reset();
  for (auto& container : pod.containers) {
    container->restart.reset();
    if (pod.finished) continue;
    if (container->run == ContainerState::Run::kRunning) {
      ContainerExit lost;
      lost.exit_code = 137;
      lost.signal = 9;
      container->last = termination(lost, container->started, loop_.now());
      container->last["reason"] = "ContainerStatusUnknown";
      container->last["message"] = "the node went off";
      ++container->restarts;
    } else if (!container->init && container->run == ContainerState::Run::kEnded) {
      continue;  // it had ended for good
    }
    container->run = ContainerState::Run::kWaiting;
    container->waiting_reason = "PodInitializing";
    container->ended = Json();
  }
}

bool Kubelet::make_volumes(PodState& pod) {
  if (pod.started) return true;
  if (pod.files) {
    const auto tokens = [this, &pod](const std::string& audience, Duration life) {
      return tokens_(audience, pod.key, pod.uid, life);
    };
    if (const Status made = pod.files->make(tokens, pod.fresh_memory); !made) {
      log_.warning("volumes can't be made", {{"pod", pod.key.name}, {"error", made.error().message}});
      pod.retry = loop_.after(kVolumeRetry, [this, uid = pod.uid] {
        if (PodState* again = find(uid)) sync(*again);
      });
      return false;
    }
    schedule_tokens(pod);
  }
  pod.started = true;
  pod.fresh_memory = false;
  return true;
}

void Kubelet::schedule_tokens(PodState& pod) {
  const auto life = pod.files->token_life();
  if (!life) return;
  pod.tokens = loop_.after(*life, [this, uid = pod.uid] {
    PodState* pod = find(uid);
    if (pod == nullptr || state_ != State::kUp || pod->finished) return;
    const Status done = pod->files->refresh_tokens(
        [&](const std::string& audience, Duration life) { return tokens_(audience, pod->key, pod->uid, life); });
    if (!done) log_.warning("a token could not be renewed", {{"pod", pod->key.name}, {"error", done.error().message}});
    schedule_tokens(*pod);
  });
}

void Kubelet::sync(PodState& pod) {
  if (state_ != State::kUp) return;
  if (pod.finished || pod.deleting) return write_status(pod);
  if (!make_volumes(pod)) return write_status(pod);
  using Run = ContainerState::Run;
  bool initialized = true;
  for (auto& container : pod.containers) {
    if (container->init && !container->sidecar) {
      if (container->run == Run::kEnded && container->succeeded) continue;
      if (container->run == Run::kWaiting && !container->restart) start_container(pod, *container);
      if (container->run == Run::kEnded && container->succeeded) continue;  // the launcher is brought at once
      initialized = false;
      break;
    }
    if (container->run == Run::kWaiting && !container->restart) start_container(pod, *container);
  }
  if (initialized && pod.phase == "Pending") pod.phase = "Running";
  write_status(pod);
}

void Kubelet::start_container(PodState& pod, ContainerState& container) {
  container.restart.reset();
  container.started = loop_.now();
  container.succeeded = false;
  container.ended = Json();
  container.id =
      pod.uid + "/" + container.name + "/" + boot_id_.substr(0, 8) + "-" + std::to_string(container.restarts);
  container.run = ContainerState::Run::kRunning;
  ContainerSpec spec;
  if (!pod.files) {
    spec.id = container.id;
    spec.ns = pod.key.ns;
    spec.pod_name = pod.key.name;
    spec.pod_uid = pod.uid;
    spec.container = container.name;
    spec.init = container.init && !container.sidecar;
    return runtime_.start(std::move(spec));
  }
  if (container.init && container.name == api::launcher::kInitContainer) {
    const Status installed = pod.files->install_launcher();
    ContainerExit exit;
    if (!installed) exit = {1, 0, false, false, installed.error().message};
    return container_ended(pod, container, exit);
  }
  auto made = pod.files->container(container.spec, container.id);
  if (!made) {
    ContainerExit exit;
    exit.exit_code = 128;
    exit.start_failed = true;
    exit.message = made.error().message;
    return container_ended(pod, container, exit);
  }
  made->init = container.init && !container.sidecar;
  runtime_.start(*std::move(made));
}

bool Kubelet::restarts(const PodState& pod, const ContainerState& container, bool success) const {
  if (pod.deleting || pod.finished) return false;
  if (container.sidecar) return true;
  if (container.init) return !success && pod.restart_policy != "Never";
  return pod.restart_policy == "Always" || (pod.restart_policy == "OnFailure" && !success);
}

void Kubelet::container_ended(PodState& pod, ContainerState& container, const ContainerExit& exit) {
  container.run = ContainerState::Run::kEnded;
  container.succeeded = exit.exit_code == 0 && exit.signal == 0;
  container.ended = termination(exit, container.started, loop_.now());
  log_.info(
      "container ended",
      {{"pod", pod.key.name}, {"container", container.name}, {"code", exit.exit_code}, {"message", exit.message}});
  if (restarts(pod, container, container.succeeded)) {
    restart_later(pod, container);
    return write_status(pod);
  }
  if (pod.deleting) {
    if (!pod.any_running()) remove_pod(pod);
    return;
  }
  const auto main_runs = [&](const auto& other) { return !other->init && other->run != ContainerState::Run::kEnded; };
  const bool init_failed = container.init && !container.sidecar && !container.succeeded;
  if (container.init && !init_failed)
    return container.name == api::launcher::kInitContainer && pod.files ? void() : sync(pod);
  if (!init_failed && std::any_of(pod.containers.begin(), pod.containers.end(), main_runs)) return write_status(pod);
  const bool failed = std::any_of(pod.containers.begin(), pod.containers.end(),
                                  [](const auto& other) { return !other->sidecar && !other->succeeded; });
  pod.finished = true;
  pod.phase = failed ? "Failed" : "Succeeded";
  kill_all(pod);  // sidecars
  write_status(pod);
}

// The first restart is at once; from the second in a row on, the back-off doubles.
void Kubelet::restart_later(PodState& pod, ContainerState& container) {
  if (loop_.now() - container.started >= settings_.restart_backoff_reset) container.failures = 0;
  Duration delay(0);
  if (container.failures > 0) {
    delay = settings_.restart_backoff_first;
    for (int i = 1; i < container.failures && delay < settings_.restart_backoff_limit; ++i) delay *= 2;
    delay = std::min(delay, settings_.restart_backoff_limit);
  }
  ++container.failures;
  container.last = container.ended;
  container.ended = Json();
  container.run = ContainerState::Run::kWaiting;
  container.waiting_reason = delay > Duration(0) ? "CrashLoopBackOff" : "Restarting";
  container.waiting_message =
      delay > Duration(0) ? "back-off " + to_string(delay) + " restarting failed container" : "";
  container.restart = loop_.after(delay, [this, uid = pod.uid, name = container.name] {
    PodState* pod = find(uid);
    if (pod == nullptr || state_ != State::kUp || pod->deleting || pod->finished) return;
    for (auto& container : pod->containers) {
      if (container->name != name || container->run != ContainerState::Run::kWaiting) continue;
      ++container->restarts;
      container->restart.reset();
    }
    sync(*pod);
  });
}

void Kubelet::begin_deletion(PodState& pod, Duration grace) {
  if (state_ != State::kUp) return;
  const bool first = !pod.deleting;
  pod.deleting = true;
  if (!pod.any_running()) return remove_pod(pod);
  if (grace <= Duration(0)) return kill_all(pod);
  if (!first && pod.grace) return;
  for (auto& container : pod.containers) {
    container->restart.reset();
    if (container->run == ContainerState::Run::kRunning) runtime_.signal(container->id, 15);
  }
  pod.grace = loop_.after(grace, [this, uid = pod.uid] {
    if (PodState* late = find(uid)) kill_all(*late);
  });
}

void Kubelet::kill_all(PodState& pod) {
  if (state_ != State::kUp) return;
  for (auto& container : pod.containers) {
    container->restart.reset();
    if (container->run == ContainerState::Run::kRunning) runtime_.kill(container->id);
  }
}

// Nothing of it runs any more: its last status, then the object goes.
void Kubelet::remove_pod(PodState& pod) {
  if (pod.removing || !client_) return;
  pod.removing = true;
  if (!pod.finished) {
    pod.finished = true;
    const bool failed = std::any_of(pod.containers.begin(), pod.containers.end(),
                                    [](const auto& container) { return !container->succeeded; });
    pod.phase = failed ? "Failed" : "Succeeded";
  }
  kube::Patch patch;
  patch.subresource = "status";
  patch.preconditions.uid = pod.uid;
  patch.body = {{"status", status_of(pod)}};
  client_->patch_raw(kube::Pod::type(), pod.key, std::move(patch), [this, uid = pod.uid](Result<kube::Payload>) {
    const PodState* pod = find(uid);
    if (pod == nullptr) return;
    kube::RemoveOptions options;
    options.preconditions.uid = uid;
    options.grace_seconds = 0;
    client_->remove_raw(kube::Pod::type(), pod->key, options, [this, uid](Status removed) {
      PodState* pod = find(uid);
      if (pod == nullptr) return;
      pod->removing = false;
      if (removed || removed.error().code == Code::kNotFound || removed.error().code == Code::kPreconditionFailed)
        return;
      pod->retry = loop_.after(kRetry, [this, uid] {
        if (PodState* again = find(uid)) remove_pod(*again);
      });
    });
  });
}

Json Kubelet::status_of(const PodState& pod) const {
  const std::string start = to_rfc3339(pod.start_time);
  Json statuses = Json::array();
  Json init_statuses = Json::array();
  bool initialized = true;
  bool ready = true;
  for (const auto& container : pod.containers) {
    using Run = ContainerState::Run;
    const bool running = container->run == Run::kRunning;
    Json state;
    if (running) {
      state["running"] = {{"startedAt", to_rfc3339(container->started)}};
    } else if (container->run == Run::kEnded) {
      state["terminated"] = container->ended;
    } else {
      state["waiting"] = {{"reason", container->waiting_reason}, {"message", container->waiting_message}};
    }
    Json status{{"name", container->name},
                {"state", state},
                {"ready", running},
                {"restartCount", container->restarts},
                {"image", container->spec.value("image", "")},
                {"lastState", container->last.is_null() ? Json::object() : Json{{"terminated", container->last}}}};
    if (container->init) {
      if (!container->sidecar && !container->succeeded) initialized = false;
      init_statuses.push_back(std::move(status));
    } else {
      ready = ready && running;
      statuses.push_back(std::move(status));
    }
  }
  return {
      {"phase", pod.phase},
      {"hostIP", settings_.node_ip},
      {"podIP", pod.ip},
      {"startTime", start},
      {"conditions", Json::array({condition("PodScheduled", true, start), condition("Initialized", initialized, start),
                                  condition("ContainersReady", ready, start), condition("Ready", ready, start)})},
      {"initContainerStatuses", std::move(init_statuses)},
      {"containerStatuses", std::move(statuses)}};
}

void Kubelet::write_status(PodState& pod) {
  if (state_ != State::kUp || pod.removing || !client_) return;
  if (pod.writing) {
    pod.write_again = true;
    return;
  }
  Json status = status_of(pod);
  std::string text = status.dump();
  if (text == pod.written) return;
  pod.writing = true;
  kube::Patch patch;
  patch.subresource = "status";
  patch.preconditions.uid = pod.uid;
  patch.body = {{"status", std::move(status)}};
  client_->patch_raw(kube::Pod::type(), pod.key, std::move(patch),
                     [this, uid = pod.uid, text = std::move(text)](Result<kube::Payload> patched) {
                       PodState* pod = find(uid);
                       if (pod == nullptr) return;
                       pod->writing = false;
                       if (patched) {
                         pod->written = text;
                         if (std::exchange(pod->write_again, false)) write_status(*pod);
                         return;
                       }
                       const Code code = patched.error().code;
                       if (code == Code::kNotFound || code == Code::kPreconditionFailed)
                         return;  // the watch says so too
                       pod->retry = loop_.after(kRetry, [this, uid] {
                         if (PodState* again = find(uid)) write_status(*again);
                       });
                     });
}

}  // namespace pitcrew::local
