#include "agent/judge/judge.hpp"

#include <algorithm>
#include <set>

#include "agent/judge/match.hpp"

namespace pitcrew::agent {
namespace {

using api::HealthAction;
using api::HealthChange;
using api::HealthClears;
using api::HealthRule;
using api::HealthScope;
using api::HealthSeverity;

// Codes that follow another fault and tell nothing about its cause: channels that are torn down (43, 45) and the
// driver's advice (154). They are no company for an XID that is judged by whether it comes alone.
bool consequence(uint32_t code) { return code == 43 || code == 45 || code == 154; }

std::string bounded(std::string text, size_t limit) {
  if (text.size() <= limit) return text;
  text.resize(limit - 3);
  return text + "...";
}

// One call of judge().
class Judge {
 public:
  Judge(const api::HealthPolicy& policy, History history, Instant now) : policy_(policy), now_(now) {
    out_.history = std::move(history);
  }

  void follow_policy() {
    clear_where(
        [&](History::Open& open) {
          const HealthRule* rule = policy_.find(open.verdict.rule);
          if (rule == nullptr || rule->severity == HealthSeverity::kInfo) return true;
          open.verdict.severity = rule->severity;
          open.verdict.certain = rule->certain;
          open.verdict.action = rule->action;
          return false;
        },
        "the policy has no such rule any more");
  }

  void take(const Observation& observation) {
    if (judged_before(observation)) return;
    if (observation.kind == kinds::kBoot) return boot(observation);
    if (observation.kind == kinds::kAgentStart || observation.kind == kinds::kDriverStart) {
      out_.history.readings.clear();
      return;
    }
    if (observation.kind == kinds::kClear) return clear_by_hand(observation);
    if (observation.kind == kinds::kCheck && observation.number("passed") == 1.0) {
      clear_where([&](const History::Open& open) { return rule_of(open).clears == HealthClears::kAfterCheck; },
                  "a deep check has passed");
    }
    if (observation.code) note_event(observation);
    if (observation.reading) return take_reading(observation);
    for (const HealthRule& rule : policy_.rules) {
      if (!matches(rule, observation, nullptr)) continue;
      if (rule.match.alone > Duration(0)) {
        wait(rule, observation);
      } else {
        count(rule, observation);
      }
    }
  }

  Judgement finish() {
    judge_waiting();
    clear_by_time();
    forget();
    for (const History::Waiting& waiting : out_.history.waiting) {
      if (const HealthRule* rule = policy_.find(waiting.rule)) wake(waiting.event.time + rule->match.alone);
    }
    for (const History::Open& open : out_.history.open) {
      const HealthRule& rule = rule_of(open);
      if (rule.clears == HealthClears::kAfterTime && (!open.reading || open.good)) {
        wake(open.verdict.last + rule.clear_after);
      }
    }
    return std::move(out_);
  }

 private:
  const HealthRule& rule_of(const History::Open& open) const { return *policy_.find(open.verdict.rule); }

  void wake(Instant at) {
    if (!out_.wake || at < *out_.wake) out_.wake = at;
  }

  bool judged_before(const Observation& observation) {
    if (observation.id.empty()) return false;
    auto& ids = out_.history.ids;
    if (std::find(ids.begin(), ids.end(), observation.id) != ids.end()) return true;
    ids.push_back(observation.id);
    if (ids.size() > History::kMaxIds) ids.pop_front();
    return false;
  }

  template <typename Predicate>
  void clear_where(Predicate predicate, const std::string& why) {
    auto& open = out_.history.open;
    for (size_t i = 0; i < open.size();) {
      if (!predicate(open[i])) {
        ++i;
        continue;
      }
      out_.changes.push_back({HealthChange::kCleared, open[i].verdict, why});
      open.erase(open.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }

  void boot(const Observation& observation) {
    const std::string id = observation.word("boot");
    const bool again = !out_.history.boot_id.empty() && out_.history.boot_id != id;
    out_.history.boot_id = id;
    if (!again) return;
    out_.history.readings.clear();
    out_.history.waiting.clear();
    out_.history.events.clear();
    clear_where(
        [&](const History::Open& open) {
          const HealthClears clears = rule_of(open).clears;
          return clears == HealthClears::kAfterReboot || clears == HealthClears::kAfterTime;
        },
        "the node has booted anew");
  }

  void clear_by_hand(const Observation& observation) {
    const std::string rule = observation.word("rule");
    clear_where(
        [&](const History::Open& open) {
          return (rule.empty() || open.verdict.rule == rule) &&
                 (observation.device.empty() || open.verdict.device == observation.device);
        },
        "cleared by hand");
    // What led to it is forgiven too; otherwise the next event would bring it back.
    std::erase_if(out_.history.sightings,
                  [&](const History::Sighting& sighting) { return rule.empty() || sighting.rule == rule; });
  }

  void note_event(const Observation& observation) {
    auto& events = out_.history.events;
    events.push_back({observation.kind, *observation.code, observation.device, observation.time});
    if (events.size() > History::kMaxEvents) events.erase(events.begin());
  }

  void take_reading(const Observation& observation) {
    History::Reading& last = out_.history.readings[{observation.kind, observation.device}];
    const bool first = last.time == Instant();
    if (!first) {
      for (const HealthRule& rule : policy_.rules) {
        if (rule.match.kind != observation.kind) continue;
        if (matches(rule, observation, &last)) {
          count(rule, observation);
        } else {
          note_good(rule, observation);
        }
      }
    }
    last.time = observation.time;
    last.values.clear();
    for (const auto& [name, value] : observation.values) {
      if (const auto* number = std::get_if<double>(&value)) last.values[name] = *number;
    }
  }

  void note_good(const HealthRule& rule, const Observation& observation) {
    const std::string& device = rule.scope == HealthScope::kGpu ? observation.device : kNode;
    for (History::Open& open : out_.history.open) {
      if (open.verdict.rule == rule.name && open.verdict.device == device) open.good = true;
    }
  }

  void wait(const HealthRule& rule, const Observation& observation) {
    auto& waiting = out_.history.waiting;
    if (waiting.size() >= History::kMaxWaiting) waiting.erase(waiting.begin());
    waiting.push_back({rule.name, observation});
  }

  bool has_company(const Observation& event, Duration alone) const {
    return std::any_of(out_.history.events.begin(), out_.history.events.end(), [&](const History::Event& other) {
      const Duration apart = other.time > event.time ? other.time - event.time : event.time - other.time;
      const bool same = other.kind == event.kind && other.code == *event.code;
      // An SXID is a switch's; it is company for every GPU.
      const bool near = other.device == event.device || other.kind == kinds::kSxid;
      return !same && near && apart <= alone && !(other.kind == kinds::kXid && consequence(other.code));
    });
  }

  void judge_waiting() {
    std::vector<History::Waiting> waiting = std::move(out_.history.waiting);
    out_.history.waiting.clear();
    for (History::Waiting& one : waiting) {
      const HealthRule* rule = policy_.find(one.rule);
      if (rule == nullptr || has_company(one.event, rule->match.alone)) continue;
      if (now_ < one.event.time + rule->match.alone) {
        out_.history.waiting.push_back(std::move(one));
      } else {
        count(*rule, one.event);
      }
    }
  }

  // The rule's matches within its window that are like this one, this one included.
  size_t sighted(const HealthRule& rule, const Observation& observation, const std::string& device) {
    if (rule.count == 1 && !rule.match.only_gpu) return 1;
    std::string same;
    for (const std::string& name : rule.same) same += observation.word(name) + "/";
    auto& sightings = out_.history.sightings;
    const auto alike = [&](const History::Sighting& sighting) {
      return sighting.rule == rule.name && sighting.same == same &&
             (rule.scope == HealthScope::kNode || sighting.device == device);
    };
    const bool in_burst = std::any_of(sightings.begin(), sightings.end(), [&](const History::Sighting& sighting) {
      return alike(sighting) && rule.burst > Duration(0) && observation.time - sighting.time < rule.burst;
    });
    if (!in_burst) {
      if (sightings.size() >= History::kMaxSightings) sightings.erase(sightings.begin());
      sightings.push_back({rule.name, observation.device, same, observation.time});
    }
    return static_cast<size_t>(std::count_if(sightings.begin(), sightings.end(), [&](const History::Sighting& one) {
      return alike(one) && observation.time - one.time <= rule.window;
    }));
  }

  bool on_other_gpus(const HealthRule& rule, const Observation& observation) const {
    return std::any_of(out_.history.sightings.begin(), out_.history.sightings.end(), [&](const auto& sighting) {
      return sighting.rule == rule.name && sighting.device != observation.device &&
             observation.time - sighting.time <= rule.window;
    });
  }

  void count(const HealthRule& rule, const Observation& observation) {
    const std::string device = rule.scope == HealthScope::kGpu ? observation.device : kNode;
    out_.matches.push_back({rule.name, device});
    if (rule.severity == HealthSeverity::kInfo) return;
    const size_t seen = sighted(rule, observation, device);
    if (rule.match.only_gpu && on_other_gpus(rule, observation)) {
      clear_where([&](const History::Open& open) { return open.verdict.rule == rule.name; },
                  "other GPUs have it too: the program, not a GPU");
      return;
    }
    if (seen < rule.count) {
      refresh(rule, observation, device);
      return;
    }
    const bool opened = !refresh(rule, observation, device);
    if (opened) raise(rule, observation, device, seen);
    if (rule.severity == HealthSeverity::kFault && rule.match.kind != kinds::kFault &&
        (opened || !observation.reading)) {
      tell_fault(rule, observation, opened);
    }
  }

  // False where the rule has no open verdict on the device.
  bool refresh(const HealthRule& rule, const Observation& observation, const std::string& device) {
    for (History::Open& open : out_.history.open) {
      if (open.verdict.rule != rule.name || open.verdict.device != device) continue;
      open.verdict.last = std::max(open.verdict.last, observation.time);
      ++open.verdict.count;
      open.good = false;
      return true;
    }
    return false;
  }

  void raise(const HealthRule& rule, const Observation& observation, const std::string& device, size_t seen) {
    Verdict verdict;
    verdict.rule = rule.name;
    verdict.device = device;
    verdict.severity = rule.severity;
    verdict.certain = rule.certain;
    verdict.action = rule.action;
    verdict.message = rule.message;
    if (rule.count > 1) {
      verdict.message += " (" + std::to_string(seen) + " within " + pitcrew::to_string(rule.window) + ")";
    }
    if (!observation.text.empty()) verdict.message += ". Seen: " + observation.text;
    verdict.message = bounded(std::move(verdict.message), 512);
    verdict.since = observation.time;
    verdict.last = observation.time;
    verdict.count = static_cast<uint32_t>(seen);
    out_.changes.push_back({HealthChange::kRaised, verdict, ""});
    out_.history.open.push_back({std::move(verdict), observation.kind, observation.reading, false});
  }

  void tell_fault(const HealthRule& rule, const Observation& observation, bool opened) {
    Observation fault;
    fault.kind = kinds::kFault;
    fault.device = observation.device;
    fault.time = observation.time;
    fault.text = rule.name;
    fault.values = {{"rule", rule.name},
                    {"from", observation.kind},
                    {"action", std::string(to_string(rule.action))},
                    {"opened", opened ? 1.0 : 0.0}};
    for (const HealthRule& other : policy_.rules) {
      if (matches(other, fault, nullptr)) count(other, fault);
    }
  }

  void clear_by_time() {
    clear_where(
        [&](const History::Open& open) {
          const HealthRule& rule = rule_of(open);
          return rule.clears == HealthClears::kAfterTime && (!open.reading || open.good) &&
                 now_ - open.verdict.last >= rule.clear_after;
        },
        "not seen again");
  }

  void forget() {
    std::erase_if(out_.history.sightings, [&](const History::Sighting& sighting) {
      const HealthRule* rule = policy_.find(sighting.rule);
      return rule == nullptr || now_ - sighting.time > rule->window;
    });
    std::erase_if(out_.history.events, [&](const History::Event& event) { return now_ - event.time > minutes(15); });
    if (now_ - out_.history.swept < hours(1)) return;
    out_.history.swept = now_;
    std::erase_if(out_.history.readings,
                  [&](const auto& entry) { return now_ - entry.second.time > History::kReadingKept; });
  }

  inline static const std::string kNode;

  const api::HealthPolicy& policy_;
  Instant now_;
  Judgement out_;
};

std::string camel_case(std::string_view name) {
  std::string reason;
  bool upper = true;
  for (const char c : name) {
    if (c == '-') {
      upper = true;
    } else {
      reason += upper && c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
      upper = false;
    }
  }
  return reason;
}

}  // namespace

std::vector<Verdict> Judgement::verdicts() const {
  std::vector<Verdict> all;
  for (const History::Open& open : history.open) all.push_back(open.verdict);
  return all;
}

Judgement judge(std::span<const Observation> observations, const api::HealthPolicy& policy, History history,
                Instant now) {
  Judge judge(policy, std::move(history), now);
  judge.follow_policy();
  for (const Observation& observation : observations) judge.take(observation);
  return judge.finish();
}

Assessment assess(std::span<const Verdict> verdicts) {
  std::vector<const Verdict*> faults;
  for (const Verdict& verdict : verdicts) {
    if (verdict.severity == HealthSeverity::kFault) faults.push_back(&verdict);
  }
  std::stable_sort(faults.begin(), faults.end(), [](const Verdict* a, const Verdict* b) {
    return std::pair(a->action, a->certain) > std::pair(b->action, b->certain);
  });
  Assessment assessment;
  if (faults.empty()) return assessment;
  assessment.healthy = false;
  assessment.needs = faults.front()->action;
  assessment.reason = camel_case(faults.front()->rule);
  for (const Verdict* fault : faults) {
    assessment.certain = assessment.certain || fault->certain;
    if (!assessment.message.empty()) assessment.message += "; ";
    assessment.message += (fault->device.empty() ? "" : fault->device + ": ") + fault->message;
  }
  assessment.message = bounded(std::move(assessment.message), 1024);
  return assessment;
}

}  // namespace pitcrew::agent
