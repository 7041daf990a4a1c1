#include "launcher/app/metrics_text.hpp"

#include <cmath>
#include <cstdio>

#include "launcher/supervise/text.hpp"

namespace pitcrew::launcher {
namespace {

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  char text[32];
  snprintf(text, sizeof text, "%.17g", value);
  return text;
}

// Label values escape three characters.
std::string escaped(std::string_view value) {
  std::string out;
  for (const char c : clean_text(value)) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

void header(std::string& out, const std::string& name, std::string_view help) {
  out += "# HELP " + name + " " + std::string(help) + "\n# TYPE " + name +
         (name.ends_with("_total") ? " counter\n" : " gauge\n");
}

}  // namespace

std::string metrics_text(const MetricsInput& input) {
  std::string out;
  const auto per_rank = [&](const char* name, const char* help, const auto& value) {
    header(out, name, help);
    for (size_t i = 0; i < input.ranks.size(); ++i) {
      if (input.ranks[i].line.updates == 0) continue;
      out += std::string(name) + "{rank=\"" + std::to_string(input.first_rank.value + i) + "\"} " +
             number(static_cast<double>(value(input.ranks[i].line))) + "\n";
    }
  };
  using Line = page::LineCopy;
  per_rank("pitcrew_rank_step", "Optimizer steps done.", [](const Line& l) { return l.step.value; });
  per_rank("pitcrew_rank_samples", "Samples consumed by the whole job.", [](const Line& l) { return l.samples; });
  per_rank("pitcrew_rank_loss", "Loss of the last step done.", [](const Line& l) { return l.loss; });
  per_rank("pitcrew_rank_collective", "Sequence number of the last collective entered.",
           [](const Line& l) { return l.collective; });
  per_rank("pitcrew_rank_in_collective", "1 while the rank is in a collective.",
           [](const Line& l) { return l.in_collective; });
  per_rank("pitcrew_rank_updates", "Updates of the rank's line.", [](const Line& l) { return l.updates; });
  per_rank("pitcrew_rank_gpu_counter", "Counter moved on by the device.", [](const Line& l) { return l.gpu_counter; });

  header(out, "pitcrew_rank_phase", "1 for the phase that the rank is in.");
  for (size_t i = 0; i < input.ranks.size(); ++i) {
    const std::string rank = std::to_string(input.first_rank.value + i);
    if (input.ranks[i].line.updates > 0) {
      out += "pitcrew_rank_phase{rank=\"" + rank + "\",phase=\"" +
             std::string(page::to_string(input.ranks[i].line.phase)) + "\"} 1\n";
    }
  }
  header(out, "pitcrew_rank_gauge", "What the program says of itself.");
  for (size_t i = 0; i < input.gauges.size(); ++i) {
    for (const auto& [name, value] : input.gauges[i]) {
      out += "pitcrew_rank_gauge{rank=\"" + std::to_string(input.first_rank.value + i) + "\",name=\"" + escaped(name) +
             "\"} " + number(value) + "\n";
    }
  }

  const auto one = [&](const char* name, const char* help, double value) {
    header(out, name, help);
    out += std::string(name) + " " + number(value) + "\n";
  };
  one("pitcrew_epoch", "The epoch whose ranks this pod runs.", static_cast<double>(input.epoch.number.value));
  one("pitcrew_total_steps", "Steps of the whole training; 0: not known.",
      static_cast<double>(input.header.total_steps));
  one("pitcrew_tokens_per_second", "Of the whole job; 0: not known.", input.tokens_per_second);
  if (input.header.durable_step)
    one("pitcrew_durable_step", "Newest durable checkpoint.", static_cast<double>(input.header.durable_step->value));
  if (input.header.memory_step)
    one("pitcrew_memory_step", "Newest memory checkpoint that counts.",
        static_cast<double>(input.header.memory_step->value));
  one("pitcrew_channel_connected", "1 while the operator is connected.", input.connected ? 1 : 0);
  one("pitcrew_output_pauses_total", "Times that ranks' output waited for its reader.", input.output_pauses);
  one("pitcrew_output_blocked_seconds_total", "Time in which it did.", input.output_blocked_seconds);
  one("pitcrew_processes_reaped_total", "Processes that ended below the launcher.", input.processes_reaped);
  one("pitcrew_stalls_total", "Stalls reported to the operator.", input.stalls);
  one("pitcrew_messages_refused_total", "Messages of the operator that were passed over.", input.messages_refused);
  one("pitcrew_channel_attempts_failed_total", "Connections to the operator that failed.",
      input.channel_attempts_failed);
  one("pitcrew_memory_received_bytes_total", "Bytes of memory checkpoints from peers.", input.memory_received_bytes);
  one("pitcrew_memory_sent_bytes_total", "Bytes of memory checkpoints to peers.", input.memory_sent_bytes);
  one("pitcrew_memory_requests_refused_total", "Peers' requests that were refused.", input.memory_requests_refused);
  return out;
}

}  // namespace pitcrew::launcher
