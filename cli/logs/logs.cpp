#include "cli/logs/logs.hpp"

#include <algorithm>
#include <set>

#include "cli/connect/exit_code.hpp"
#include "cli/logs/log_lines.hpp"
#include "cli/show/words.hpp"
#include "lib/kube/types/pod.hpp"

namespace pitcrew::cli {
namespace {

constexpr size_t kAtOnce = 32;  // pods asked at a time
constexpr Duration kFollowEvery = seconds(1);
constexpr Duration kSettle = seconds(2);  // another pod's line may come so much later
constexpr int64_t kStackLines = 20'000;
constexpr char kHang[] = "no progress for";  // what launchers say of stacks that they take of a hang

using Query = std::vector<std::pair<std::string, std::string>>;

struct Source {
  std::string pod;
  std::string uid;
};

int refuse(std::ostream& err, const std::string& command, const Error& error) {
  err << command << ": " << error.message << "\n";
  return exit_code_of(error);
}

// Pods that may have said something: bound to a node.
Result<std::vector<Source>> sources_of(Cluster& cluster, const api::TrainingJob& job, const LogOptions& options) {
  PITCREW_ASSIGN(
      const auto pods,
      cluster.list(kube::Pod::type(),
                   {.ns = cluster.ns(), .label_selector = std::string(api::label::kJob) + "=" + job.metadata.name}));
  std::string wanted = options.pod;
  if (options.rank) {
    const auto& slots = job.status.slots;
    for (size_t i = 0; i < slots.size(); ++i) {
      const bool last = i + 1 == slots.size();
      if (slots[i].first_rank.value <= *options.rank && (last || *options.rank < slots[i + 1].first_rank.value))
        wanted = api::pod_name(job, slots[i].serial);
    }
    if (wanted.empty()) return Error(Code::kNotFound, "rank " + std::to_string(*options.rank) + " runs nowhere now");
  }
  std::vector<Source> sources;
  for (const Json& json : pods) {
    const auto pod = kube::Pod::decode(json);
    if (!pod || pod->node_name.empty() || (!wanted.empty() && pod->metadata.name != wanted)) continue;
    sources.push_back({pod->metadata.name, pod->metadata.uid});
  }
  if (sources.empty()) {
    return Error(Code::kNotFound, wanted.empty() ? "the job has no pods on nodes now; see why: " + cluster.pitcrew() +
                                                       " diagnose " + job.metadata.name
                                                 : "there is no pod " + wanted + " of this job on a node now");
  }
  return sources;
}

// The logs of all pods, each to `then`; at most some at a time.
void read_all(Cluster& cluster, const std::string& container, const std::vector<Source>& sources,
              const std::function<Query(const std::string& pod)>& query,
              const std::function<void(const std::string& pod, Result<std::string> text)>& then) {
  for (size_t at = 0; at < sources.size(); at += kAtOnce) {
    for (size_t i = at; i < std::min(at + kAtOnce, sources.size()); ++i) {
      Query parameters = query(sources[i].pod);
      parameters.emplace_back("container", container);
      cluster.text_later(kube::Pod::type(), {cluster.ns(), sources[i].pod}, "log", std::move(parameters),
                         [&then, pod = sources[i].pod](Result<std::string> text) { then(pod, std::move(text)); });
    }
    cluster.wait();
  }
}

// What pods have said lately, by their names; of those that can be read.
std::map<std::string, std::string> newest_logs(Cluster& cluster, const api::TrainingJob& job,
                                               const std::vector<Source>& sources) {
  std::map<std::string, std::string> texts;
  const auto query = [](const std::string&) { return Query{{"tailLines", std::to_string(kStackLines)}}; };
  read_all(cluster, job.spec.container, sources, query, [&](const std::string& pod, Result<std::string> text) {
    if (text) texts[pod] = *std::move(text);
  });
  return texts;
}

// Stacks that a launcher prints are about its ranks.
bool wanted(const LogLine& line, const LogOptions& options) {
  if (options.launcher) return !line.rank;
  if (options.rank) return line.rank == options.rank;
  return options.all || line.rank || !said_by_launcher(line.text);
}

// Returns whether the line was wanted.
bool print(const LogLine& line, const LogOptions& options, const Terminal& terminal, size_t rank_width,
           std::ostream& out) {
  static constexpr Tone kTones[] = {Tone::kPlain, Tone::kGood, Tone::kWarning, Tone::kBold};
  if (!wanted(line, options)) return false;
  if (options.timestamps) out << terminal.paint(Tone::kDim, line.time.substr(0, 23) + "Z") << " ";
  if (!options.rank) {
    const std::string mark = line.rank ? "rank " + std::to_string(*line.rank) : line.pod;
    out << terminal.paint(line.rank ? kTones[*line.rank % 4] : Tone::kDim, padded(mark, rank_width)) << " ";
  }
  out << line.text << "\n";
  return true;
}

// Why nothing was printed of the lines that were read.
std::string nothing_wanted(const LogOptions& options, size_t read) {
  if (read == 0)
    return options.previous ? "the containers before these said nothing" : "its pods have said nothing yet";
  const bool all = options.tail < 0;
  const std::string of = all ? "" : "of the last " + std::to_string(options.tail) + " lines of each pod none is a";
  const std::string more = all ? "" : "--tail reads more";
  if (options.launcher) return all ? "no launcher has said anything yet" : of + " launcher's; " + more;
  if (options.rank) {
    const std::string rank = "rank " + std::to_string(*options.rank);
    return all ? rank + " has said nothing yet" : of + " line of " + rank + "; " + more;
  }
  return (all ? "no rank has said anything yet" : of + " rank's") + "; --launcher shows what the launchers say" +
         (all ? "" : ", " + more);
}

// "2026-03-01T02:14:07.1Z" → "2026-03-01T02:14:07Z": all that sinceTime takes.
std::string whole_seconds(const std::string& time) { return time.substr(0, 19) + "Z"; }

}  // namespace

int show_logs(Cluster& cluster, const std::string& name, const LogOptions& options, const Terminal& terminal,
              std::ostream& out, std::ostream& err) {
  auto job = cluster.job(name);
  if (!job) return refuse(err, "logs " + name, job.error());
  auto sources = sources_of(cluster, *job, options);
  if (!sources) return refuse(err, "logs " + name, sources.error());
  size_t rank_width = 8;
  for (const Source& source : *sources)
    rank_width = std::max(rank_width, options.launcher || options.all ? source.pod.size() : size_t{8});

  LogMerger merger;
  std::set<std::string> complained;
  const auto query = [&](const std::string& pod) {
    Query parameters{{"timestamps", "true"}};
    if (const std::string since = merger.since(pod); !since.empty()) {
      parameters.emplace_back("sinceTime", whole_seconds(since));
    } else if (options.tail >= 0) {
      parameters.emplace_back("tailLines", std::to_string(options.tail));
    }
    if (options.previous) parameters.emplace_back("previous", "true");
    return parameters;
  };
  size_t answered = 0;
  const auto take = [&](const std::string& pod, Result<std::string> text) {
    if (text) {
      ++answered;
      return merger.add(pod, *text);
    }
    if (complained.insert(pod).second) err << "logs of " << pod << ": " << text.error().message << "\n";
  };
  read_all(cluster, job->spec.container, *sources, query, take);
  if (answered == 0) return exit_code_of(Error(Code::kNotFound, ""));
  size_t read = 0, told = 0;
  for (const LogLine& line : merger.take()) {
    ++read;
    told += print(line, options, terminal, rank_width, out) ? 1 : 0;
  }
  if (!options.follow) {
    if (told == 0) err << "logs " << name << ": " << nothing_wanted(options, read) << "\n";
    return kExitDone;
  }

  // Many pods are asked less often: at most a hundred requests a second.
  const Duration every = std::max(kFollowEvery, kFollowEvery * static_cast<int>(sources->size()) / 100);
  for (out.flush(); cluster.pause(every); out.flush()) {
    if (const auto now = cluster.job(name)) {
      job = now;
      if (auto found = sources_of(cluster, *job, options)) sources = std::move(found);
    }
    read_all(cluster, job->spec.container, *sources, query, take);
    for (const LogLine& line : merger.take(to_rfc3339(cluster.now() - kSettle, 9)))
      print(line, options, terminal, rank_width, out);
    if (api::terminal(job->status.phase)) break;
  }
  for (const LogLine& line : merger.take()) print(line, options, terminal, rank_width, out);
  return kExitDone;
}

int show_last_hang(Cluster& cluster, const std::string& name, const Terminal& terminal, std::ostream& out,
                   std::ostream& err) {
  const auto job = cluster.job(name);
  if (!job) return refuse(err, "stacks " + name, job.error());
  const auto sources = sources_of(cluster, *job, {});
  if (!sources) return refuse(err, "stacks " + name, sources.error());
  const auto texts = newest_logs(cluster, *job, *sources);
  size_t found = 0;
  for (const auto& [pod, text] : texts) {
    const auto blocks = stacks_in(text, kHang);
    if (blocks.empty()) continue;
    out << terminal.paint(Tone::kBold, "== " + pod + " ==") << "\n" << blocks.back();
    ++found;
  }
  if (found > 0) return kExitDone;
  err << "stacks " << name
      << ": no log of its pods has stacks of a hang; a pod that was replaced took its own along. What "
      << "was found out about each hang: " << cluster.pitcrew() << " timeline " << name << "\n";
  return kExitNo;
}

int show_stacks(Cluster& cluster, const std::string& name, Duration patience, const Terminal& terminal,
                std::ostream& out, std::ostream& err) {
  const auto answer = ask_operator(cluster, name, "stacks", patience);
  if (!answer) {
    err << "stacks " << name << ": " << answer.error().message << "\n";
    return answer.error().code == Code::kDeadlineExceeded ? kExitTooLate : exit_code_of(answer.error());
  }
  if (answer->state != "Done") {
    err << "stacks " << name << ": refused: " << answer->message << "\n";
    return kExitNo;
  }
  const auto job = cluster.job(name);
  if (!job) return refuse(err, "stacks " + name, job.error());
  const auto sources = sources_of(cluster, *job, {});
  if (!sources) return refuse(err, "stacks " + name, sources.error());
  size_t found = 0;
  for (const auto& [pod, text] : newest_logs(cluster, *job, *sources)) {
    for (const std::string& block : stacks_in(text, "request " + answer->id)) {
      out << terminal.paint(Tone::kBold, "== " + pod + " ==") << "\n" << block;
      ++found;
    }
  }
  if (found > 0) return kExitDone;
  err << "stacks " << name << ": answered (" << answer->message
      << "), but the logs that can be read don't have them; they are between lines '==== pitcrew stacks begin: request "
      << answer->id << "'\n";
  return kExitNo;
}

}  // namespace pitcrew::cli
