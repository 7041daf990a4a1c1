#include "cli/diagnose/report.hpp"

#include <algorithm>

#include "cli/connect/exit_code.hpp"
#include "cli/diagnose/gather.hpp"
#include "cli/show/words.hpp"

namespace pitcrew::cli {
namespace {

constexpr size_t kLastLines = 8;
constexpr size_t kAlso = 5;
constexpr size_t kAlsoLines = 2;  // which pods, and what of them

const char* sign(CheckState state) {
  switch (state) {
    case CheckState::kGood:
      return "✓";
    case CheckState::kBad:
      return "✗";
    case CheckState::kWarning:
      return "!";
    case CheckState::kUnknown:
      return "·";
  }
  return "·";
}

Tone tone(CheckState state) {
  switch (state) {
    case CheckState::kGood:
      return Tone::kGood;
    case CheckState::kBad:
      return Tone::kBad;
    case CheckState::kWarning:
      return Tone::kWarning;
    case CheckState::kUnknown:
      return Tone::kDim;
  }
  return Tone::kPlain;
}

// What the rank that failed said last, where it belongs to what is wrong now.
std::string last_lines(const Facts& facts, const Terminal& terminal) {
  if (facts.last_lines.empty() || facts.job.status.phase == api::Phase::kRunning) return {};
  std::string out = "\nLast lines of " + facts.last_lines_of + ":\n";
  const size_t from = facts.last_lines.size() > kLastLines ? facts.last_lines.size() - kLastLines : 0;
  for (size_t i = from; i < facts.last_lines.size(); ++i)
    out += "    " + terminal.paint(Tone::kDim, cut(facts.last_lines[i], terminal.width - 4)) + "\n";
  return out;
}

std::string nothing_wrong(const Facts& facts) {
  const auto& status = facts.job.status;
  if (status.phase == api::Phase::kSucceeded) return "Nothing is wrong: it has trained to the end.";
  if (status.phase == api::Phase::kRunning) return "Nothing is wrong: it trains.";
  return "Nothing that explains it was found; it may simply be on its way.";
}

}  // namespace

std::string print_diagnosis(const Facts& facts, const Diagnosis& diagnosis, const Terminal& terminal) {
  const auto& meta = facts.job.metadata;
  std::string out = terminal.paint(Tone::kBold, meta.name) + " in " + meta.ns + ": " + diagnosis.headline;
  if (facts.job.status.epoch.number.value > 0) out += ", epoch " + std::to_string(facts.job.status.epoch.number.value);
  out += "\n\n";
  for (const Check& check : diagnosis.checks) {
    out += "  " + terminal.paint(tone(check.state), sign(check.state)) + " " + padded(check.name, 12) + " " +
           hang(check.text, 17, terminal.width) + "\n";
  }
  out += last_lines(facts, terminal);
  if (diagnosis.findings.size() > 1) {
    out += "\nAlso found:\n";
    for (size_t i = 1; i < diagnosis.findings.size() && i <= kAlso; ++i) {
      const Finding& finding = diagnosis.findings[i];
      out += "  - " + hang(finding.title, 4, terminal.width) + "\n";
      for (size_t line = 0; line < std::min(finding.evidence.size(), kAlsoLines); ++line)
        out += "    " + terminal.paint(Tone::kDim, hang(finding.evidence[line], 4, terminal.width)) + "\n";
    }
  }
  if (!facts.unseen.empty()) {
    out += "\nNot seen, so not judged:\n";
    for (const std::string& what : facts.unseen) out += "  - " + hang(what, 4, terminal.width) + "\n";
  }
  if (diagnosis.findings.empty()) {
    out += "\n" + terminal.paint(Tone::kGood, nothing_wrong(facts)) + "\n";
    return out + "Next:  " + pitcrew(facts, "status " + meta.name) + "\n";
  }
  const Finding& first = diagnosis.findings.front();
  out += "\n" + terminal.paint(Tone::kBold, "Most likely: ") + hang(first.title, 13, terminal.width) + "\n";
  for (const std::string& evidence : first.evidence) out += "  " + hang(evidence, 2, terminal.width) + "\n";
  if (!first.remedy.empty()) out += "What to do:  " + hang(first.remedy, 13, terminal.width) + "\n";
  return out + terminal.paint(Tone::kBold, "Next:") + "  " + first.command + "\n";
}

Json document_of(const Facts& facts, const Diagnosis& diagnosis) {
  Json document = {{"job", facts.job.metadata.name},
                   {"namespace", facts.job.metadata.ns},
                   {"phase", api::to_string(facts.job.status.phase)},
                   {"headline", diagnosis.headline},
                   {"checks", Json::array()},
                   {"findings", Json::array()},
                   {"notSeen", facts.unseen},
                   {"lastLines", facts.last_lines}};
  for (const Check& check : diagnosis.checks) {
    const char* state = check.state == CheckState::kGood      ? "good"
                        : check.state == CheckState::kBad     ? "bad"
                        : check.state == CheckState::kWarning ? "warning"
                                                              : "unknown";
    document["checks"].push_back({{"name", check.name}, {"state", state}, {"text", check.text}});
  }
  for (const Finding& finding : diagnosis.findings) {
    document["findings"].push_back({{"id", finding.id},
                                    {"weight", finding.weight},
                                    {"title", finding.title},
                                    {"evidence", finding.evidence},
                                    {"remedy", finding.remedy},
                                    {"command", finding.command}});
  }
  return document;
}

int diagnose(Cluster& cluster, const std::string& job, Format format, const Terminal& terminal, std::ostream& out,
             std::ostream& err) {
  const auto facts = gather(cluster, job);
  if (!facts) {
    err << "diagnose " << job << ": " << facts.error().message << "\n";
    return exit_code_of(facts.error());
  }
  const Diagnosis diagnosis = judge(*facts);
  if (format == Format::kJson || format == Format::kYaml) {
    out << print_document(document_of(*facts, diagnosis), format);
  } else {
    out << print_diagnosis(*facts, diagnosis, terminal);
  }
  return diagnosis.findings.empty() ? kExitDone : kExitNo;
}

}  // namespace pitcrew::cli
