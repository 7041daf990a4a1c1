#include "lib/base/log.hpp"

#include <cctype>
#include <chrono>

#define FMT_HEADER_ONLY
#include <nlohmann/json.hpp>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace pitcrew {

struct Logger::State {
  LogFormat format;
  LogLevel level;
  Sink sink;                               // where set
  std::shared_ptr<spdlog::logger> spdlog;  // else
};

namespace {

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

std::string quote(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::shared_ptr<spdlog::logger> make(spdlog::sink_ptr sink, LogFormat format) {
  auto logger = std::make_shared<spdlog::logger>("pitcrew", std::move(sink));
  logger->set_level(spdlog::level::debug);
  logger->flush_on(spdlog::level::info);
  // %v is already JSON without its braces where the format asks for it.
  logger->set_pattern(
      format == LogFormat::kJson ? R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v})" : "%H:%M:%S.%e %l %v",
      spdlog::pattern_time_type::utc);
  return logger;
}

void append(std::string& text, const LogField& field, LogFormat format) {
  if (format == LogFormat::kJson) {
    text += ",\"" + field.name() + "\":" + (field.quoted() ? quote(field.value()) : field.value());
  } else {
    const bool spaces = field.value().find(' ') != std::string::npos;
    text += " " + field.name() + "=" + (spaces ? quote(field.value()) : field.value());
  }
}

}  // namespace

LogField::LogField(std::string_view name, std::string_view value) : name_(name), value_(value), quoted_(true) {}

Logger Logger::to_stderr(LogFormat format, LogLevel level) {
  Logger logger;
  logger.state_ = std::make_shared<State>(
      State{format, level, nullptr, make(std::make_shared<spdlog::sinks::stderr_sink_mt>(), format)});
  return logger;
}

Logger Logger::to_file(const std::string& path, LogFormat format, LogLevel level) {
  Logger logger;
  try {
    logger.state_ = std::make_shared<State>(
        State{format, level, nullptr, make(std::make_shared<spdlog::sinks::basic_file_sink_mt>(path), format)});
  } catch (const spdlog::spdlog_ex&) {
    return to_stderr(format, level);  // a log that cannot be opened must not stop the program
  }
  return logger;
}

Logger Logger::to(Sink sink, LogFormat format, LogLevel level) {
  Logger logger;
  logger.state_ = std::make_shared<State>(State{format, level, std::move(sink), nullptr});
  return logger;
}

Logger Logger::with(LogFields fields) const {
  if (!state_) return {};
  Logger logger = *this;
  for (const LogField& field : fields) append(logger.context_, field, state_->format);
  return logger;
}

void Logger::write(LogLevel level, std::string_view message, LogFields fields) const {
  if (!state_ || level < state_->level) return;
  std::string line = state_->format == LogFormat::kJson ? "\"message\":" + quote(message) : std::string(message);
  line += context_;
  for (const LogField& field : fields) append(line, field, state_->format);
  if (state_->sink) {
    state_->sink(level, state_->format == LogFormat::kJson ? "{" + line + "}" : line);
  } else {
    state_->spdlog->log(to_spdlog(level), spdlog::string_view_t(line));
  }
}

}  // namespace pitcrew
