#include "cli/top/top.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "cli/connect/exit_code.hpp"
#include "cli/diagnose/gather.hpp"
#include "cli/job/status.hpp"
#include "cli/show/table.hpp"
#include "cli/show/words.hpp"

namespace pitcrew::cli {
namespace {

constexpr char kDataWait[] = "data_wait_seconds";
constexpr char kHome[] = "\x1b[H\x1b[J";  // to the corner, and clear below

double gauge(const RankFact& rank, const std::string& name) {
  const auto found = rank.gauges.find(name);
  return found == rank.gauges.end() ? 0 : found->second;
}

std::string value(const RankFact& rank, const std::string& name) {
  const auto found = rank.gauges.find(name);
  if (found == rank.gauges.end()) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", found->second);
  return text;
}

}  // namespace

std::string print_ranks(const Facts& facts, const Terminal& terminal, size_t most) {
  if (facts.ranks.empty()) {
    return facts.pods.empty() ? ""
                              : "No launcher tells its ranks' numbers: it is not connected yet, or the pod is in its "
                                "host's network and "
                                "its template names no port pitcrew-metrics.\n";
  }
  std::map<std::string, std::string> node_of;
  for (const PodFact& pod : facts.pods) node_of[pod.name] = pod.node;
  std::set<std::string> names;  // what programs say of themselves, beside what has a column
  for (const RankFact& rank : facts.ranks) {
    for (const auto& [name, number] : rank.gauges) names.insert(name);
  }
  for (const char* known : {kDataWait, "tokens_per_second", "loss"}) names.erase(known);

  std::vector<const RankFact*> ranks;
  for (const RankFact& rank : facts.ranks) ranks.push_back(&rank);
  std::stable_sort(ranks.begin(), ranks.end(), [](const RankFact* a, const RankFact* b) {
    return std::make_pair(a->step, -gauge(*a, kDataWait)) < std::make_pair(b->step, -gauge(*b, kDataWait));
  });
  std::vector<std::string> headings{">RANK", "NODE", ">STEP", "PHASE", "WHERE", ">DATA WAIT"};
  for (const std::string& name : names) headings.push_back(">" + name);
  Table table(headings);
  uint64_t newest = 0;
  for (const RankFact* rank : ranks) newest = std::max(newest, rank->step);
  for (size_t i = 0; i < ranks.size() && i < most; ++i) {
    const RankFact& rank = *ranks[i];
    std::vector<Table::Cell> row{
        {std::to_string(rank.rank)},
        {node_of[rank.pod]},
        {grouped(rank.step), rank.step + 1 < newest ? Tone::kBad : Tone::kPlain},
        {rank.phase},
        {rank.in_collective ? "in a collective" : "computing", Tone::kDim},
        {rank.gauges.contains(kDataWait) ? spoken(from_seconds(gauge(rank, kDataWait))) : "-"}};
    for (const std::string& name : names) row.push_back({value(rank, name)});
    table.add(std::move(row));
  }
  std::string out = table.render(terminal);
  if (ranks.size() > most) out += "… and " + std::to_string(ranks.size() - most) + " more ranks\n";
  return out;
}

int show_top(Cluster& cluster, const std::string& name, const TopOptions& options, const Terminal& terminal,
             std::ostream& out, std::ostream& err) {
  if (const Status caught = cluster.catch_interrupt(); !caught) {
    err << "top: " << caught.error().message << "\n";
    return kExitBadInput;
  }
  do {
    std::string screen;
    bool over = false;
    if (name.empty()) {
      std::ostringstream text;
      if (const int code = show_status(cluster, "", options.all_namespaces, Format::kText, terminal, text, err);
          code != kExitDone)
        return code;
      screen = text.str();
    } else {
      const auto facts = gather(cluster, name, {.log_lines = 0});
      if (!facts) {
        err << "top " << name << ": " << facts.error().message << "\n";
        return exit_code_of(facts.error());
      }
      over = api::terminal(facts->job.status.phase);
      screen = print_status(facts->job, facts->now, terminal, false) + "\n" +
               print_ranks(*facts, terminal, options.most_ranks);
    }
    out << (options.once ? "" : kHome) << screen << std::flush;
    if (options.once || over) break;
  } while (cluster.pause(options.every));
  return kExitDone;
}

}  // namespace pitcrew::cli
