#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

namespace pitcrew {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kJson, kPlain };

// A field of a log line: a name and a number, a text or a truth value.
class LogField {
 public:
  LogField(std::string_view name, std::string_view value);
  LogField(std::string_view name, const char* value) : LogField(name, std::string_view(value)) {}
  LogField(std::string_view name, const std::string& value) : LogField(name, std::string_view(value)) {}
  LogField(std::string_view name, bool value) : name_(name), value_(value ? "true" : "false") {}
  template <typename Number>
    requires(std::is_arithmetic_v<Number> && !std::is_same_v<Number, bool>)
  LogField(std::string_view name, Number value) : name_(name), value_(std::to_string(value)) {}

  const std::string& name() const { return name_; }
  const std::string& value() const { return value_; }
  bool quoted() const { return quoted_; }

 private:
  std::string name_;
  std::string value_;
  bool quoted_ = false;
};
using LogFields = std::initializer_list<LogField>;

// Writes log lines: JSON in a cluster, plain text on a terminal. A copy shares its sink; with() adds fields to every
// line. Thread-safe. The default-constructed logger drops everything, which is what most tests want.
//
//   log.info("epoch committed", {{"job", name}, {"epoch", number}});
class Logger {
 public:
  using Sink = std::function<void(LogLevel, const std::string& line)>;

  Logger() = default;
  // Lines go to the file descriptor 2 (spdlog's stderr sink).
  static Logger to_stderr(LogFormat format, LogLevel level = LogLevel::kInfo);
  // Lines go to a file, appended.
  static Logger to_file(const std::string& path, LogFormat format, LogLevel level = LogLevel::kInfo);
  static Logger to(Sink sink, LogFormat format, LogLevel level = LogLevel::kInfo);

  Logger with(LogFields fields) const;

  void debug(std::string_view message, LogFields fields = {}) const { write(LogLevel::kDebug, message, fields); }
  void info(std::string_view message, LogFields fields = {}) const { write(LogLevel::kInfo, message, fields); }
  void warning(std::string_view message, LogFields fields = {}) const { write(LogLevel::kWarning, message, fields); }
  void error(std::string_view message, LogFields fields = {}) const { write(LogLevel::kError, message, fields); }

 private:
  struct State;
  void write(LogLevel level, std::string_view message, LogFields fields) const;

  std::shared_ptr<const State> state_;
  std::string context_;  // fields of with(), already formatted
};

}  // namespace pitcrew
