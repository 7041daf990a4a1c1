#include "cli/checkpoint/checkpoint.hpp"

#include <filesystem>

#include "cli/connect/exit_code.hpp"
#include "cli/logs/logs.hpp"
#include "cli/show/table.hpp"
#include "cli/show/words.hpp"
#include "lib/base/file.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/net/crypto.hpp"
#include "trainer/checkpoint/inspection.hpp"

namespace pitcrew::cli {
namespace {

constexpr Duration kLookEvery = milliseconds(500);
constexpr int64_t kStartGrace = 60;  // of the pod's own limit beyond our patience, seconds

const Json* training_container(const api::TrainingJob& job) {
  const Json::json_pointer at("/spec/containers");
  const Json& pod = job.spec.pod_template;
  if (!pod.contains(at) || !pod.at(at).is_array()) return nullptr;
  for (const Json& container : pod.at(at)) {
    if (container.value("name", "") == job.spec.container) return &container;
  }
  return nullptr;
}

int show(const Json& document, bool intact, Format format, const Terminal& terminal, std::ostream& out) {
  out << (format == Format::kJson || format == Format::kYaml ? print_document(document, format)
                                                             : print_checkpoints(document, terminal));
  return intact ? kExitDone : kExitNo;
}

int refuse(std::ostream& err, const std::string& command, const Error& error) {
  err << command << ": " << error.message << "\n";
  return error.code == Code::kDeadlineExceeded ? kExitTooLate : exit_code_of(error);
}

// Why the pod isn't running, for people; empty: it is, or was.
std::string held_up(const kube::Pod& pod) {
  if (!pod.unschedulable_message.empty()) return "no node takes it: " + pod.unschedulable_message;
  for (const kube::ContainerStatus& container : pod.containers) {
    if (!container.waiting_reason.empty()) return container.waiting_reason + " " + container.waiting_message;
  }
  return {};
}

// The pod goes, however this ends.
class ShortPod {
 public:
  ShortPod(Cluster& cluster, std::string name) : cluster_(cluster), name_(std::move(name)) {}
  ~ShortPod() {
    const Status removed = cluster_.remove(kube::Pod::type(), {cluster_.ns(), name_}, 0);
    (void)removed;  // its activeDeadlineSeconds ends it, and it goes with the job
  }
  ShortPod(const ShortPod&) = delete;
  ShortPod& operator=(const ShortPod&) = delete;

  Result<kube::Pod> ended(Duration patience) {
    std::string why;
    for (const Instant until = cluster_.now() + patience; cluster_.now() < until;) {
      PITCREW_ASSIGN(const Json json, cluster_.get(kube::Pod::type(), {cluster_.ns(), name_}));
      PITCREW_ASSIGN(kube::Pod pod, kube::Pod::decode(json));
      if (pod.ended()) return pod;
      why = held_up(pod);
      if (!cluster_.pause(kLookEvery)) return Error(Code::kCancelled, "interrupted");
    }
    return Error(Code::kDeadlineExceeded,
                 "the pod " + name_ + " was not done within " + to_string(patience) + (why.empty() ? "" : ": " + why));
  }

 private:
  Cluster& cluster_;
  std::string name_;
};

}  // namespace

bool is_local(const std::string& job_or_path) {
  return job_or_path.find('/') != std::string::npos || std::filesystem::is_directory(job_or_path);
}

int checkpoint_now(Cluster& cluster, const std::string& job, Duration patience, std::ostream& out, std::ostream& err) {
  const auto answer = ask_operator(cluster, job, "save", patience);
  if (!answer) return refuse(err, "checkpoint now " + job, answer.error());
  if (answer->state != "Done") {
    err << "checkpoint now " << job << ": refused: " << answer->message << "\n";
    return kExitNo;
  }
  out << job << ": " << (answer->message.empty() ? "saved" : answer->message) << "\n";
  return kExitDone;
}

int look_locally(const std::string& path, const LookOptions& options, Format format, const Terminal& terminal,
                 std::ostream& out, std::ostream& err) {
  const auto found = trainer::inspect_checkpoints(posix_file_system(), path, options.step, options.verify);
  if (!found) return refuse(err, options.verify ? "checkpoint verify" : "checkpoint ls", found.error());
  return show(found->document, found->intact, format, terminal, out);
}

Json look_pod(const api::TrainingJob& job, const std::string& name, const LookOptions& options) {
  const Json& spec = job.spec.pod_template.at("spec");
  Json container = {{"name", "checkpoints"},
                    {"image", options.image},
                    {"command", {"pitcrew-train", "checkpoints", job.spec.checkpoint->path}},
                    {"resources", {{"requests", {{"cpu", "1"}, {"memory", "512Mi"}}}}}};
  if (!options.step.empty()) {
    container["command"].push_back("--name");
    container["command"].push_back(options.step);
  }
  if (options.verify) container["command"].push_back("--verify");
  if (const Json* training = training_container(job)) {
    for (const char* key : {"volumeMounts", "securityContext"}) {
      if (training->contains(key)) container[key] = training->at(key);
    }
    if (job.spec.checkpoint->path.starts_with("s3://")) {  // its region, endpoint and keys
      for (const char* key : {"env", "envFrom"}) {
        if (training->contains(key)) container[key] = training->at(key);
      }
    }
  }
  Json pod_spec = {{"restartPolicy", "Never"},
                   {"activeDeadlineSeconds", static_cast<int64_t>(to_seconds(options.patience)) + kStartGrace},
                   {"containers", Json::array({std::move(container)})}};
  for (const char* key :
       {"volumes", "securityContext", "serviceAccountName", "imagePullSecrets", "tolerations", "nodeSelector"}) {
    if (spec.contains(key)) pod_spec[key] = spec.at(key);
  }
  return {{"apiVersion", "v1"},
          {"kind", "Pod"},
          {"metadata",
           {{"name", name},
            {"namespace", job.metadata.ns},
            {"labels", {{"app.kubernetes.io/managed-by", "pitcrew-cli"}}},
            {"ownerReferences", Json::array({{{"apiVersion", api::TrainingJob::type().api_version()},
                                              {"kind", api::TrainingJob::type().kind},
                                              {"name", job.metadata.name},
                                              {"uid", job.metadata.uid}}})}}},
          {"spec", std::move(pod_spec)}};
}

int look_in_pod(Cluster& cluster, const std::string& name, const LookOptions& options, Format format,
                const Terminal& terminal, std::ostream& out, std::ostream& err) {
  const std::string command = std::string(options.verify ? "checkpoint verify " : "checkpoint ls ") + name;
  const auto job = cluster.job(name);
  if (!job) return refuse(err, command, job.error());
  if (!job->spec.checkpoint) {
    err << command << ": the job has no spec.checkpoint\n";
    return kExitNo;
  }
  const std::string pod_name = name + "-look-" + net::hex(net::random_bytes(3));
  const auto made = cluster.create(kube::Pod::type(), look_pod(*job, pod_name, options));
  if (!made) return refuse(err, command, made.error());
  ShortPod pod(cluster, pod_name);
  const auto ended = pod.ended(options.patience);
  if (!ended) return refuse(err, command, ended.error());
  const auto log = cluster.text(kube::Pod::type(), {cluster.ns(), pod_name}, "log", {{"container", "checkpoints"}});
  if (!log) return refuse(err, command, log.error());
  // The last line that is an object: what stands before it is whatever else the image says.
  for (size_t end = log->size(); end > 0;) {
    const size_t begin = log->rfind('\n', end - 1);
    const std::string line =
        log->substr(begin == std::string::npos ? 0 : begin + 1, end - (begin == std::string::npos ? 0 : begin + 1));
    if (const auto document = parse_json(line); document && document->is_object() && document->contains("checkpoints"))
      return show(*document, ended->phase == kube::PodPhase::kSucceeded, format, terminal, out);
    if (begin == std::string::npos) break;
    end = begin;
  }
  err << command << ": the pod " << pod_name << " said: " << cut(*log, 2000) << "\n"
      << "its image must have pitcrew-train; name one with --image\n";
  return kExitNo;
}

std::string print_checkpoints(const Json& document, const Terminal& terminal) {
  const Json& list = document.at("checkpoints");
  std::string out = document.value("path", "") + ": ";
  if (list.empty()) return out + "no checkpoints\n";
  const bool verified = document.value("verified", false);
  out += count_of(list.size(), "checkpoint") + (verified ? ", every byte read\n\n" : "\n\n");
  Table table({"CHECKPOINT", ">STEP", ">CLAIM", ">SIZE", "STATE"});
  for (const Json& one : list) {
    const bool intact = one.value("intact", false);
    table.add({{one.value("name", "")},
               {grouped(one.value("step", uint64_t{0}))},
               {std::to_string(one.value("claim", uint64_t{0}))},
               {bytes(one.value("bytes", uint64_t{0}))},
               {intact ? (verified ? "intact" : "complete") : one.value("problem", "damaged"),
                intact ? Tone::kGood : Tone::kBad}});
  }
  return out + table.render(terminal);
}

}  // namespace pitcrew::cli
