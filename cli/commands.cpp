#include "cli/commands.hpp"

#include <functional>
#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>
#include <unistd.h>

#include "cli/checkpoint/checkpoint.hpp"
#include "cli/complete/complete.hpp"
#include "cli/connect/cluster.hpp"
#include "cli/connect/exit_code.hpp"
#include "cli/connect/leading_flags.hpp"
#include "cli/diagnose/report.hpp"
#include "cli/job/status.hpp"
#include "cli/job/timeline.hpp"
#include "cli/job/wait.hpp"
#include "cli/logs/logs.hpp"
#include "cli/nodes/nodes.hpp"
#include "cli/top/top.hpp"
#include "lib/base/version.hpp"

namespace pitcrew::cli {
namespace {

constexpr Duration kCompletionPatience = seconds(2);

// The flags that every command of a cluster has, and what they come to.
struct Common {
  ClusterFlags cluster;
  std::string output;
  std::string colour = "auto";
  std::string timeout;
  Format format = Format::kText;
  std::string name;  // the positional: a job or a node

  void add_to(CLI::App& command, bool with_output) {
    command.add_option("--kubeconfig", cluster.kubeconfig, "Default: KUBECONFIG, the pod's identity, ~/.kube/config");
    command.add_option("--context", cluster.context, "Of the kubeconfig");
    command.add_option("-n,--namespace", cluster.ns, "Default: the context's");
    command.add_option("--color", colour, "Default auto: on terminals, unless NO_COLOR is set")
        ->type_name("auto|always|never")
        ->check(CLI::IsMember({"auto", "always", "never"}));
    if (with_output) command.add_option("-o,--output", output, "Default text")->type_name("text|wide|json|yaml");
  }
  Terminal terminal() const { return Terminal::of(STDOUT_FILENO, colour); }
};
using CommonPtr = std::shared_ptr<Common>;

// Runs `body` with a cluster, or says why there is none.
int with_cluster(const Common& common, const std::function<int(Cluster&)>& body) {
  net::AsioLoop loop;
  auto cluster = Cluster::open(loop, common.cluster);
  if (!cluster) {
    std::cerr << "pitcrew: " << cluster.error().message << "\n";
    return cluster.error().code == Code::kUnavailable ? kExitUnreachable : kExitBadInput;
  }
  return body(**cluster);
}

// -o and times, which CLI11 doesn't know.
bool understood(Common& common) {
  const auto format = parse_format(common.output);
  if (!format) std::cerr << "pitcrew: " << format.error().message << "\n";
  if (format) common.format = *format;
  return format.ok();
}

Result<Duration> patience(const std::string& text, Duration otherwise) {
  if (text.empty()) return otherwise;
  return parse_duration(text);
}

int bad_time(const Error& error) {
  std::cerr << "pitcrew: --timeout: " << error.message << "\n";
  return kExitBadInput;
}

CLI::App* job_command(CLI::App& parent, const std::string& name, const std::string& help, const CommonPtr& common,
                      bool with_output, bool required = true) {
  CLI::App* command = parent.add_subcommand(name, help);
  CLI::Option* job = command->add_option("job", common->name, "A TrainingJob's name")->type_name("JOB");
  if (required) job->required();
  common->add_to(*command, with_output);
  return command;
}

void add_status(CLI::App& app, int& code) {
  auto common = std::make_shared<Common>();
  CLI::App* status =
      job_command(app, "status", "What a job is doing, how far it is and what went wrong last", common, true, false);
  status->add_flag("-A,--all-namespaces", common->cluster.all_namespaces, "Jobs of all namespaces");
  status->footer(
      "Exit codes: 0 shown, 1 the named job has failed, 2 bad input, 3 no answer from the cluster, 4 no such job.");
  status->callback([common, &code] {
    code = !understood(*common) ? kExitBadInput : with_cluster(*common, [&](Cluster& cluster) {
      return show_status(cluster, common->name, common->cluster.all_namespaces, common->format, common->terminal(),
                         std::cout, std::cerr);
    });
  });

  auto timeline_common = std::make_shared<Common>();
  CLI::App* timeline =
      job_command(app, "timeline", "Everything that has happened to a job, and what it cost", timeline_common, true);
  timeline->callback([common = timeline_common, &code] {
    code = !understood(*common) ? kExitBadInput : with_cluster(*common, [&](Cluster& cluster) {
      return show_timeline(cluster, common->name, common->format, common->terminal(), std::cout, std::cerr);
    });
  });

  auto diagnose_common = std::make_shared<Common>();
  CLI::App* command = job_command(app, "diagnose", "Why a job isn't training, or why slowly, and what to do next",
                                  diagnose_common, true);
  command->footer(
      "Exit codes: 0 nothing is wrong, 1 something is, 2 bad input, 3 no answer from the cluster, 4 no such job.");
  command->callback([common = diagnose_common, &code] {
    code = !understood(*common) ? kExitBadInput : with_cluster(*common, [&](Cluster& cluster) {
      return diagnose(cluster, common->name, common->format, common->terminal(), std::cout, std::cerr);
    });
  });
}

void add_wait(CLI::App& app, int& code) {
  auto common = std::make_shared<Common>();
  auto options = std::make_shared<WaitOptions>();
  CLI::App* wait = job_command(app, "wait", "Wait until a job is in a phase: for pipelines", common, false);
  wait->add_option("--for", options->phase, "Default Succeeded")
      ->type_name("PHASE")
      ->check(CLI::IsMember({"Pending", "Starting", "Running", "Recovering", "Suspended", "Succeeded", "Failed"}));
  wait->add_option("--timeout", common->timeout, "How long (default 10m)");
  wait->footer(
      "A job that isn't there yet is waited for. Exit codes: 0 it is, 1 the job has ended otherwise, 2 bad input,\n"
      "3 no answer from the cluster, 5 not within --timeout.");
  wait->callback([common, options, &code] {
    const auto timeout = patience(common->timeout, options->timeout);
    if (!timeout) {
      code = bad_time(timeout.error());
      return;
    }
    options->timeout = *timeout;
    code = with_cluster(
        *common, [&](Cluster& cluster) { return wait_for_job(cluster, common->name, *options, std::cout, std::cerr); });
  });
}

void add_logs(CLI::App& app, int& code) {
  auto common = std::make_shared<Common>();
  auto options = std::make_shared<LogOptions>();
  CLI::App* logs = job_command(app, "logs", "What all ranks say, in the order of time, or one of them", common, false);
  auto* rank = logs->add_option("--rank", options->rank, "Of this rank alone");
  logs->add_option("--pod", options->pod, "Of this pod alone");
  auto* launcher =
      logs->add_flag("--launcher", options->launcher, "What the launchers say, not the ranks")->excludes(rank);
  logs->add_flag("--all", options->all, "What ranks and launchers say")->excludes(rank)->excludes(launcher);
  logs->add_flag("-f,--follow", options->follow, "Go on until Ctrl-C or the job's end");
  logs->add_flag("-p,--previous", options->previous, "Of the containers before these");
  logs->add_flag("--timestamps", options->timestamps, "With the time of each line");
  logs->add_option("--tail", options->tail, "Lines of each pod; -1: all (default 200)");
  logs->callback([common, options, &code] {
    code = with_cluster(*common, [&](Cluster& cluster) {
      if (options->follow && !cluster.catch_interrupt()) return kExitBadInput;
      return show_logs(cluster, common->name, *options, common->terminal(), std::cout, std::cerr);
    });
  });

  auto stacks_common = std::make_shared<Common>();
  CLI::App* stacks = job_command(app, "stacks", "The stacks of all ranks, as they are now", stacks_common, false);
  auto last_hang = std::make_shared<bool>(false);
  auto* timeout = stacks->add_option("--timeout", stacks_common->timeout, "How long to wait for them (default 1m)");
  stacks->add_flag("--last-hang", *last_hang, "Those that were written when it hung last")->excludes(timeout);
  stacks->callback([common = stacks_common, last_hang, &code] {
    const auto limit = patience(common->timeout, minutes(1));
    code = !limit ? bad_time(limit.error()) : with_cluster(*common, [&](Cluster& cluster) {
      if (*last_hang) return show_last_hang(cluster, common->name, common->terminal(), std::cout, std::cerr);
      return show_stacks(cluster, common->name, *limit, common->terminal(), std::cout, std::cerr);
    });
  });
}

void add_look(CLI::App& parent, const char* name, const char* help, bool verify, int& code) {
  auto common = std::make_shared<Common>();
  auto options = std::make_shared<LookOptions>();
  options->verify = verify;
  options->image = "ghcr.io/pitcrew/trainer:" + release();
  CLI::App* command = parent.add_subcommand(name, help);
  command->add_option("job", common->name, "A TrainingJob's name, or a folder on this machine")
      ->type_name("JOB")
      ->required();
  command->add_option("--name", options->step, "Of this checkpoint alone: step-000000000500-c7");
  command->add_option("--image", options->image, "Of the short pod: any that has pitcrew-train")->capture_default_str();
  command->add_option("--timeout", common->timeout, "How long to wait for the pod (default 10m)");
  common->add_to(*command, true);
  command->footer(
      "Exit codes: 0 all intact, 1 damaged or refused, 2 bad input, 3 no answer from the cluster, 4 no such job, 5 not "
      "answered in time.");
  command->callback([common, options, &code] {
    const auto limit = patience(common->timeout, minutes(10));
    if (!limit) {
      code = bad_time(limit.error());
    } else if (!understood(*common)) {
      code = kExitBadInput;
    } else if (is_local(common->name)) {
      code = look_locally(common->name, *options, common->format, common->terminal(), std::cout, std::cerr);
    } else {
      options->patience = *limit;
      code = with_cluster(*common, [&](Cluster& cluster) {
        return look_in_pod(cluster, common->name, *options, common->format, common->terminal(), std::cout, std::cerr);
      });
    }
  });
}

void add_checkpoint(CLI::App& app, int& code) {
  CLI::App* checkpoint = app.add_subcommand("checkpoint", "Save now; list and verify checkpoints");
  checkpoint->require_subcommand(1);
  auto common = std::make_shared<Common>();
  CLI::App* now = job_command(*checkpoint, "now", "Have a running job write a durable checkpoint", common, false);
  now->add_option("--timeout", common->timeout, "How long to wait for it (default 10m)");
  now->callback([common, &code] {
    const auto limit = patience(common->timeout, minutes(10));
    code = !limit ? bad_time(limit.error()) : with_cluster(*common, [&](Cluster& cluster) {
      return checkpoint_now(cluster, common->name, *limit, std::cout, std::cerr);
    });
  });
  add_look(*checkpoint, "ls", "What a job's checkpoint folder holds", false, code);
  add_look(*checkpoint, "verify", "Read every byte of a checkpoint, by default the newest", true, code);
}

void add_nodes(CLI::App& app, int& code) {
  auto common = std::make_shared<Common>();
  CLI::App* nodes = app.add_subcommand("nodes", "Which nodes can train, which can't, and why");
  nodes->add_option("node", common->name, "All that is known of this one")->type_name("NODE");
  common->add_to(*nodes, true);
  nodes->callback([common, &code] {
    code = !understood(*common) ? kExitBadInput : with_cluster(*common, [&](Cluster& cluster) {
      return show_nodes(cluster, common->name, common->format, common->terminal(), std::cout, std::cerr);
    });
  });

  CLI::App* check = app.add_subcommand("check", "Deep checks");
  check->require_subcommand(1);
  auto check_common = std::make_shared<Common>();
  CLI::App* node = check->add_subcommand("node", "Have a node's GPUs and network checked, and wait for the result");
  node->add_option("node", check_common->name, "A node that no job is on")->type_name("NODE")->required();
  node->add_option("--timeout", check_common->timeout, "How long to wait (default 30m)");
  check_common->add_to(*node, false);
  node->footer(
      "Exit codes: 0 passed, 1 failed or refused, 2 bad input, 3 no answer from the cluster, 4 no such node, 5 no "
      "result in time.");
  node->callback([common = check_common, &code] {
    const auto limit = patience(common->timeout, minutes(30));
    code = !limit ? bad_time(limit.error()) : with_cluster(*common, [&](Cluster& cluster) {
      return check_node(cluster, common->name, *limit, std::cout, std::cerr);
    });
  });
}

void add_top(CLI::App& app, int& code) {
  auto common = std::make_shared<Common>();
  auto options = std::make_shared<TopOptions>();
  CLI::App* top = job_command(app, "top", "A job and its ranks, live; without a job, all jobs", common, false, false);
  top->add_flag("--once", options->once, "Once, then end");
  top->add_flag("-A,--all-namespaces", options->all_namespaces, "Jobs of all namespaces");
  top->add_option("--ranks", options->most_ranks, "Most ranks shown, the slowest first (default 64)");
  top->callback([common, options, &code] {
    if (isatty(STDOUT_FILENO) == 0) options->once = true;
    code = with_cluster(*common, [&](Cluster& cluster) {
      return show_top(cluster, common->name, *options, common->terminal(), std::cout, std::cerr);
    });
  });
}

std::vector<std::string> names_in_cluster(const std::string& kind, ClusterFlags flags) {
  net::AsioLoop loop;
  flags.timeout = kCompletionPatience;
  std::vector<std::string> names;
  const auto cluster = Cluster::open(loop, flags);
  if (!cluster) return names;
  const ResourceType& type = kind == "JOB" ? api::TrainingJob::type() : kube::Node::type();
  const auto items = (*cluster)->list(type, {.ns = type.namespaced ? (*cluster)->ns() : ""});
  if (!items) return names;
  for (const Json& item : *items) names.push_back(item.value(Json::json_pointer("/metadata/name"), ""));
  return names;
}

void add_completion(CLI::App& app, int& code) {
  auto shell = std::make_shared<std::string>();
  CLI::App* completion = app.add_subcommand("completion", "A script for your shell: source <(pitcrew completion bash)");
  completion->add_option("shell", *shell, "bash or zsh")
      ->type_name("bash|zsh")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh"}));
  completion->callback([shell, &code] {
    std::cout << completion_script(*shell);
    code = kExitDone;
  });
}

}  // namespace

void add_cluster_commands(CLI::App& app, int& code) {
  add_status(app, code);
  add_wait(app, code);
  add_logs(app, code);
  add_checkpoint(app, code);
  add_nodes(app, code);
  add_top(app, code);
  add_completion(app, code);
}

int print_completions(const CLI::App& app, const std::vector<std::string>& typed) {
  const auto names = [&](const std::string& kind) { return names_in_cluster(kind, cluster_flags_in(typed)); };
  for (const std::string& candidate : complete(app, typed, names)) std::cout << candidate << "\n";
  return kExitDone;
}

}  // namespace pitcrew::cli
