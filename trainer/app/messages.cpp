#include "trainer/app/messages.hpp"

#include <cctype>
#include <charconv>
#include <cstdio>

#include <unistd.h>

#include "lib/base/clock.hpp"
#include "lib/base/json.hpp"

namespace pitcrew::trainer {
namespace {

std::string_view word(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "";
}

// One write for each line: ranks of a pod share the file.
void write_json(LogLevel level, const std::string& line) {
  std::string text = "{\"time\":\"" + to_rfc3339(RealClock().now(), 3) + "\",\"level\":\"";
  text.append(word(level)).append("\",");
  if (const auto json = parse_json(line); json && json->contains("message")) {
    if (const auto step = step_of(json->at("message").get<std::string>()))
      text += "\"step\":" + std::to_string(*step) + ",";
  }
  text.append(line, 1).push_back('\n');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t wrote = ::write(STDERR_FILENO, text.data() + done, text.size() - done);
    if (wrote <= 0) return;
    done += static_cast<size_t>(wrote);
  }
}

}  // namespace

std::optional<uint64_t> step_of(std::string_view message) {
  constexpr std::string_view kWord = "step ";
  for (size_t at = message.find(kWord); at != std::string_view::npos; at = message.find(kWord, at + 1)) {
    if (at > 0 && std::isalnum(static_cast<unsigned char>(message[at - 1]))) continue;
    const std::string_view rest = message.substr(at + kWord.size());
    uint64_t step = 0;
    if (std::from_chars(rest.data(), rest.data() + rest.size(), step).ec == std::errc()) return step;
  }
  return std::nullopt;
}

Messages::Messages(LogFormat format, const RankEnvironment& environment)
    : json_(format == LogFormat::kJson), rank_(environment.rank) {
  if (!json_) {
    log_ = Logger::to_stderr(LogFormat::kPlain).with({{"rank", environment.rank}});
    return;
  }
  log_ = Logger::to(write_json, LogFormat::kJson)
             .with({{"program", "pitcrew-train"},
                    {"namespace", environment.job.ns},
                    {"job", environment.job.name},
                    {"epoch", environment.epoch.value},
                    {"rank", environment.rank}});
}

void Messages::print(const std::string& line) const {
  if (json_) return log_.info(line);
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

void Messages::complain(const std::string& message) const {
  if (json_) return log_.error(message);
  std::fprintf(stderr, "pitcrew-train: rank %u: %s\n", rank_, message.c_str());
}

}  // namespace pitcrew::trainer
