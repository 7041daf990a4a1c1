#include "operator/decide/evidence.hpp"

#include <algorithm>
#include <tuple>

#include "lib/base/progress_page.hpp"
#include "operator/decide/decide.hpp"
#include "operator/decide/node_loss.hpp"
#include "operator/decide/rules.hpp"

namespace pitcrew::control {
namespace {

using api::Cause;
using api::channel::Exited;
using api::channel::ExitKind;
using api::channel::Stalled;

constexpr Duration kSettle = milliseconds(300);
constexpr Duration kHangSettle = seconds(2);
constexpr Duration kBusyAgain = seconds(5);
constexpr Duration kRootWait = seconds(10);
constexpr Duration kExitsAfterHello = seconds(2);

// The smaller, the nearer to the first cause.
enum class Weight { kInfrastructure, kHardExit, kHang, kSoftExit, kIdle, kConsequence };

struct Sign {
  Weight weight;
  Instant at;  // when it was seen
  Verdict verdict;
};

// Codes and signals that no lost peer brings about. SIGABRT (6) is what communication libraries end a process with.
bool hard(const Exited& exit) {
  switch (exit.kind) {
    case ExitKind::kOom:
    case ExitKind::kStartFailed:
      return true;
    case ExitKind::kSignaled:
      return exit.code != 6;
    case ExitKind::kExited:
      return exit.code == exit_code::kBadConfiguration || exit.code == exit_code::kBadData ||
             exit.code == exit_code::kReplaceNode;
  }
  return false;
}

// Codes that a rank ends with when its results can't be right.
bool about_results(const Exited& exit) {
  return exit.kind == ExitKind::kExited && (exit.code == exit_code::kBadData || exit.code == exit_code::kTryAgain ||
                                            exit.code == exit_code::kReplaceNode);
}

const kube::ContainerStatus* training_container(const Situation& situation, const kube::Pod& pod) {
  for (const kube::ContainerStatus& container : pod.containers) {
    if (container.name == situation.spec.container) return &container;
  }
  return pod.containers.empty() ? nullptr : &pod.containers.front();
}

class Reader {
 public:
  explicit Reader(Situation& situation) : s_(situation) {}

  Judgement read() {
    size_t done = 0;
    for (const api::SlotStatus& row : s_.stored.slots) {
      row_ = &row;
      member_ = s_.member_of(row.slot).value_or(Member{});
      if (finished()) {
        ++done;
        continue;
      }
      const size_t before = signs_.size() + stalls_.size();
      read_pod();
      if (!member_.pod_lost()) read_channel();
      if (signs_.size() + stalls_.size() == before) someone_is_mute_ = true;
    }
    if (!s_.stored.slots.empty() && done == s_.stored.slots.size()) result_.done = true;
    if (!result_.done) choose();
    return std::move(result_);
  }

 private:
  // All of its ranks ended with exit code 0 and phase done.
  bool finished() const {
    const LauncherView* view = s_.launcher(row_->pod_uid);
    if (view == nullptr || view->seen != s_.epoch() || view->exited.size() < s_.in.shape.processes) return false;
    return std::all_of(view->exited.begin(), view->exited.end(),
                       [](const auto& entry) { return entry.second.message.done && entry.second.message.code == 0; });
  }

  Sign& add(Weight weight, Cause cause, Instant at, std::string evidence) {
    Sign sign{weight, at, {}};
    sign.verdict.cause = cause;
    sign.verdict.slot = row_->slot;
    sign.verdict.node = row_->node;
    sign.verdict.happened = at;
    sign.verdict.evidence = std::move(evidence);
    signs_.push_back(std::move(sign));
    return signs_.back();
  }

  void lose(Cause cause) { result_.lost.push_back({row_->slot, cause, row_->node}); }

  void read_pod() {
    const std::string name = api::pod_name(s_.job, row_->serial);
    const bool node_lost = s_.node(row_->node) == nullptr || !s_.node(row_->node)->ready();
    if (member_.pod == nullptr || member_.pod->metadata.uid != row_->pod_uid) {
      const Cause cause = node_lost ? Cause::kNodeLoss : Cause::kPlanned;
      add(Weight::kInfrastructure, cause, s_.now, "pod " + name + " is gone" + (node_lost ? ", its node too" : ""));
      lose(cause);
      // Whoever is there instead has no part in this epoch.
      member_.launcher = nullptr;
    } else if (member_.pod->deleting()) {
      const Cause cause = node_lost ? Cause::kNodeLoss : Cause::kPlanned;
      add(Weight::kInfrastructure, cause, std::min(s_.now, *member_.pod->metadata.deletion_time),
          "pod " + name + " is being deleted" + (node_lost ? ", its node is not ready" : ""));
      lose(cause);
    } else if (member_.pod->ended()) {
      const Cause cause = node_lost ? Cause::kNodeLoss : Cause::kLauncherDeath;
      add(Weight::kInfrastructure, cause, s_.now,
          "pod " + name + " ended" + (member_.pod->reason.empty() ? "" : ": " + member_.pod->reason));
      lose(cause);
    }
  }

  void read_channel() {
    const LauncherView* view = member_.launcher;
    if (view != nullptr && view->seen > s_.epoch()) {
      add(Weight::kIdle, Cause::kUnknown, view->since,
          "the launcher of slot " + std::to_string(row_->slot.value) + " has seen epoch " +
              std::to_string(view->seen.number.value));
    }
    if (read_launcher_death()) return;
    const NodeLossVerdict loss = judge_node_loss(s_, member_);
    if (loss.look_again) s_.wake_at(*loss.look_again);
    if (loss.lost) {
      add(Weight::kInfrastructure, Cause::kNodeLoss, loss.happened,
          "node " + row_->node + ": its channel is silent since " + to_rfc3339(loss.happened) + ", and " +
              loss.second_sign);
      lose(Cause::kNodeLoss);
      return;
    }
    if (view == nullptr && !s_.hello_grace_over()) someone_may_say_hello_ = true;
    if (view == nullptr || view->silent_since) {
      unexplained_silence_ = true;
      silence_ = std::max(silence_, silence_before_loss(member_));
    }
    if (view == nullptr || view->seen != s_.epoch()) return;

    for (const auto& [rank, exit] : view->exited) read_exit(rank, exit);
    if (view->stalled) stalls_.push_back({row_, &*view->stalled});
    for (const auto& evidence : view->evidence) {
      if (!evidence.message.peer) continue;
      Sign& sign = add(Weight::kConsequence, Cause::kUnknown, evidence.at,
                       evidence.message.kind + ": " + evidence.message.message);
      sign.verdict.rank = evidence.message.rank;
    }
    if (view->progress && view->progress->message.lost_peer) {
      const auto& lost = view->progress->message.lost_rank;
      Sign& sign = add(Weight::kConsequence, Cause::kUnknown, view->progress->at,
                       "slot " + std::to_string(row_->slot.value) + " lost its peer" +
                           (lost ? " rank " + std::to_string(lost->value) : std::string()));
      sign.verdict.rank = lost;
      if (lost) blame(sign.verdict, *lost);
    }
    if (view->connected && !view->running && view->exited.empty() && !view->stopped && !view->aborted) {
      // Exits follow the hello on the same connection: give them a moment.
      if (s_.now < view->since + kExitsAfterHello) {
        s_.wake_at(view->since + kExitsAfterHello);
      } else {
        add(Weight::kIdle, Cause::kUnknown, view->since,
            "the ranks of slot " + std::to_string(row_->slot.value) + " do not run");
      }
    }
  }

  // A rank's slot and node, for signs that a peer reports.
  void blame(Verdict& verdict, Rank rank) const {
    for (const api::SlotStatus& row : s_.stored.slots) {
      if (rank.value < row.first_rank.value || rank.value >= row.first_rank.value + s_.in.shape.processes) continue;
      verdict.slot = row.slot;
      verdict.node = row.node;
    }
  }

  bool read_launcher_death() {
    const LauncherView* view = member_.launcher;
    const Instant committed = s_.stored.epoch.committed.value_or(Instant{});
    const std::string who = "the launcher of slot " + std::to_string(row_->slot.value) + " (node " + row_->node + ") ";
    std::string why;
    Instant when = s_.now;
    if (member_.pod != nullptr) {
      if (const kube::ContainerStatus* container = training_container(s_, *member_.pod)) {
        for (const auto* end : {&container->terminated, &container->last_terminated}) {
          if (!*end || !(*end)->finished || (*end)->finished->since_epoch() < committed.since_epoch()) continue;
          when = std::min(when, *(*end)->finished);
          why = "died: " + ((*end)->reason.empty() ? "exit code " + std::to_string((*end)->exit_code) : (*end)->reason);
        }
      }
    }
    if (view != nullptr && view->boots > 1 && view->booted > committed && view->seen <= s_.epoch() &&
        (view->seen == s_.epoch() || epoch_ran())) {
      if (why.empty()) why = "died and was started again";
      when = std::min(when, view->booted);
    }
    // A leader that came later knows a reborn launcher by its idleness where everybody else runs.
    if (why.empty() && view != nullptr && view->connected && view->seen < s_.epoch() && epoch_ran()) {
      why = "has lost the epoch";
    }
    // It has begun this epoch anew: what the container's last state tells is older than that.
    if (view != nullptr && view->connected && view->running && view->seen == s_.epoch() && view->boots <= 1)
      return false;
    if (why.empty()) return false;
    if (view != nullptr && view->silent_since) when = std::min(when, *view->silent_since);
    add(Weight::kInfrastructure, Cause::kLauncherDeath, when, who + why);
    return true;
  }

  // Training was seen in this epoch, so whoever doesn't know the epoch has forgotten it.
  bool epoch_ran() const { return s_.stored.phase == api::Phase::kRunning; }

  void read_exit(Rank rank, const Received<Exited>& received) {
    const Exited& exit = received.message;
    if (exit.done && exit.code == 0) return;
    Cause cause = Cause::kRankCrash;
    if (exit.kind == ExitKind::kExited) {
      if (exit.code == exit_code::kBadConfiguration || exit.code == exit_code::kBadData) cause = Cause::kProgram;
      if (exit.code == exit_code::kReplaceNode) cause = efa(*member_.launcher) ? Cause::kEfaFault : Cause::kGpuFault;
    }
    const bool lost_peer =
        std::any_of(member_.launcher->evidence.begin(), member_.launcher->evidence.end(),
                    [&](const auto& evidence) { return evidence.message.rank == rank && evidence.message.peer; });
    const Weight weight = hard(exit) ? Weight::kHardExit : lost_peer ? Weight::kConsequence : Weight::kSoftExit;
    const bool early = exit.kind == ExitKind::kExited && exit.code == 0;
    Sign& sign = add(
        weight, cause, received.at,
        "rank " + std::to_string(rank.value) + ": " + (early ? "exited with 0 before training was done" : exit.reason));
    sign.verdict.rank = rank;
    if (exit.kind == ExitKind::kExited) sign.verdict.exit_code = exit.code;
    sign.verdict.log = exit.last_lines;
    if (const auto* said = word_of(rank); said != nullptr && about_results(exit)) {
      sign.verdict.evidence += ": " + said->message;
      if (exit.code == exit_code::kTryAgain && said->step && !said->digest.empty()) {
        sign.weight = Weight::kHardExit;
        sign.verdict.cause = Cause::kUnknown;
        sign.verdict.replay = {*said->step, rank, row_->node, said->digest, s_.spec.replicas * s_.in.shape.processes};
      }
    }
    // What the job's rules name says what it is.
    if (match_rules(s_.spec.recovery.rules, sign.verdict)) sign.weight = Weight::kHardExit;
    // Where a program without the page stood is not known: the same exception may have come somewhere else.
    if (!exit.exception.empty() && !without_page(*member_.launcher)) {
      sign.verdict.fingerprint = exit.exception.substr(0, 200) + " at step " + std::to_string(exit.step.value);
    }
    // A program that can't be started is not in its image: no node has another.
    if (exit.kind == ExitKind::kStartFailed) sign.verdict.fingerprint = exit.reason.substr(0, 200);
  }

  // What the rank itself said last about its results.
  const api::channel::Evidence* word_of(Rank rank) const {
    const api::channel::Evidence* found = nullptr;
    for (const auto& [at, said] : member_.launcher->evidence) {
      const bool results = said.kind == "nonfinite" || said.kind == "spike" || said.kind == "digest";
      if (said.rank == rank && !said.peer && results) found = &said;
    }
    return found;
  }

  static bool without_page(const LauncherView& view) {
    return view.progress && view.progress->message.phase == api::channel::kWithoutPage;
  }

  static bool efa(const LauncherView& view) {
    return std::any_of(view.evidence.begin(), view.evidence.end(),
                       [](const auto& evidence) { return evidence.message.kind.find("efa") != std::string::npos; });
  }

  // A pod whose ranks save, evaluate or restore is waited for by all others in a collective. Its launcher judges how
  // long that may take, and says so in a stall of its own.
  bool busy_elsewhere() const {
    return std::any_of(s_.stored.slots.begin(), s_.stored.slots.end(), [&](const api::SlotStatus& row) {
      const LauncherView* view = s_.launcher(row.pod_uid);
      if (view == nullptr || !view->connected || view->silent_since || view->seen != s_.epoch()) return false;
      if (view->stalled || !view->progress) return false;
      const std::string& phase = view->progress->message.phase;
      return phase == page::to_string(page::Phase::kSaving) || phase == page::to_string(page::Phase::kEvaluating) ||
             phase == page::to_string(page::Phase::kRestoring);
    });
  }

  // The culprit of a hang: the rank that is not in a collective, else the one in the lowest.
  void read_hang() {
    if (stalls_.empty()) return;
    if (busy_elsewhere()) {
      s_.wake_at(s_.now + kBusyAgain);
      return;
    }
    Instant first = s_.now;
    for (const auto& [row, stall] : stalls_) first = std::min(first, stall->at);
    if (s_.now < first + kHangSettle && stalls_.size() < s_.stored.slots.size()) {
      s_.wake_at(first + kHangSettle);
      hang_settles_ = true;
      return;
    }
    struct Suspect {
      bool in_collective;
      uint64_t collective;
      Rank rank;
      const api::SlotStatus* row;
      std::optional<bool> gpu_behind;
    };
    std::vector<Suspect> suspects;
    for (const auto& [row, stall] : stalls_) {
      for (const auto& rank : stall->message.ranks)
        suspects.push_back({rank.in_collective, rank.collective, rank.rank, row, rank.gpu_behind});
    }
    const auto order = [](const Suspect& a, const Suspect& b) {
      return std::tie(a.in_collective, a.collective, a.rank) < std::tie(b.in_collective, b.collective, b.rank);
    };
    std::sort(suspects.begin(), suspects.end(), order);
    const bool clear = suspects.size() > 1 && (suspects[0].in_collective != suspects[1].in_collective ||
                                               suspects[0].collective != suspects[1].collective);
    const Stalled& stall = stalls_.front().second->message;
    row_ = clear || suspects.size() == 1 ? suspects[0].row : stalls_.front().first;
    std::string text = "no progress for " +
                       to_string(std::chrono::duration_cast<seconds>(from_seconds(stall.seconds))) + " at step " +
                       std::to_string(stall.step.value);
    Sign& sign = add(Weight::kHang, Cause::kHang, first, "");
    sign.verdict.happened = first - from_seconds(stall.seconds);
    if (clear || suspects.size() == 1) {
      sign.verdict.rank = suspects[0].rank;
      text += suspects[0].in_collective ? "; rank " + std::to_string(suspects[0].rank.value) +
                                              " is behind, in collective " + std::to_string(suspects[0].collective)
                                        : "; rank " + std::to_string(suspects[0].rank.value) + " is in no collective";
      if (const auto behind = suspects[0].gpu_behind)
        text += *behind ? "; its device has not done what it was given"
                        : "; its device has nothing left to do: the host is stuck";
    } else {
      sign.verdict.slot.reset();
      sign.verdict.node.clear();
      text += "; which rank is at fault is unknown";
    }
    sign.verdict.evidence = std::move(text);
  }

  void choose() {
    read_hang();
    if (signs_.empty()) return;
    std::sort(signs_.begin(), signs_.end(),
              [](const Sign& a, const Sign& b) { return std::tie(a.weight, a.at) < std::tie(b.weight, b.at); });
    const Sign& best = signs_.front();
    Instant first = best.at;
    for (const Sign& sign : signs_) first = std::min(first, sign.at);

    Duration wait = kSettle;
    if (best.weight == Weight::kInfrastructure) wait = Duration{0};
    // A rank that ended on its own account may have lost one whose launcher is silent, or is about to be: of a gang
    // that breaks, every other slot says something soon.
    const bool suspicious = unexplained_silence_ || (someone_is_mute_ && best.weight == Weight::kSoftExit);
    if ((best.weight == Weight::kSoftExit || best.weight == Weight::kHang) && suspicious) wait = silence_ + kSettle;
    if (best.weight == Weight::kConsequence) wait = kRootWait;
    if (best.weight == Weight::kConsequence && hang_settles_) wait = kRootWait;
    if (s_.now < first + wait) {
      s_.wake_at(first + wait);
      return;
    }
    // What may come of a silence can't be judged before the silence is: a fresh leader's view is not whole yet.
    if (best.weight >= Weight::kHang && someone_may_say_hello_) {
      s_.wake_at(s_.in.leading_since + kHelloGrace);
      return;
    }
    if (best.weight >= Weight::kSoftExit && unexplained_silence_) {
      if (const Herd herd = judge_herd(s_.in.connected_nodes, s_.in.silent_nodes, s_.now); herd.waiting) {
        s_.wake_at(herd.until);
        return;
      }
    }
    result_.verdict = best.verdict;
    if (best.verdict.evidence.size() > 1024) result_.verdict->evidence.resize(1024);
  }

  Situation& s_;
  const api::SlotStatus* row_ = nullptr;
  Member member_;
  std::vector<Sign> signs_;
  std::vector<std::pair<const api::SlotStatus*, const Received<Stalled>*>> stalls_;
  bool unexplained_silence_ = false;
  bool someone_may_say_hello_ = false;
  Duration silence_ = kSilence;
  bool someone_is_mute_ = false;
  bool hang_settles_ = false;
  Judgement result_;
};

}  // namespace

Judgement judge(Situation& situation) { return Reader(situation).read(); }

}  // namespace pitcrew::control
