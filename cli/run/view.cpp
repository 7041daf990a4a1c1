#include "cli/run/view.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

namespace pitcrew::cli {
namespace {

std::string format(const char* pattern, double value) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, pattern, value);
  return buffer;
}

std::string rate(double tokens_per_second) {
  if (tokens_per_second >= 1e6) return format("%.2fM tokens/s", tokens_per_second / 1e6);
  if (tokens_per_second >= 1e3) return format("%.1fk tokens/s", tokens_per_second / 1e3);
  return format("%.0f tokens/s", tokens_per_second);
}

class TextView final : public View {
 public:
  TextView(std::FILE* out, bool terminal, Instant start) : out_(out), terminal_(terminal), start_(start) {}
  ~TextView() override { clear(); }

  void event(Instant time, const std::string& text, const Json&) override {
    clear();
    std::fprintf(out_, "%s  %s\n", since_start(time).c_str(), text.c_str());
    std::fflush(out_);
  }

  void standing(Instant time, const Standing& standing) override {
    const std::string line = since_start(time) + "  " + standing.phase + ": " + describe(standing);
    if (terminal_) {
      clear();
      std::fputs(cut(line).c_str(), out_);
      std::fflush(out_);
      shown_ = true;
      return;
    }
    if (standing.step == last_step_) return;
    if (last_ && time - *last_ < seconds(10) && standing.step < last_step_ + 50 &&
        standing.step != standing.total_steps)
      return;
    last_ = time;
    last_step_ = standing.step;
    std::fprintf(out_, "%s\n", line.c_str());
    std::fflush(out_);
  }

 private:
  std::string since_start(Instant time) const {
    const int64_t whole = (time - start_) / seconds(1);
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%02lld:%02lld", static_cast<long long>(whole / 60),
                  static_cast<long long>(whole % 60));
    return buffer;
  }

  // The line must not wrap, or it could not be written over. Bytes above 0x7f that continue a character take no column.
  std::string cut(const std::string& line) const {
    winsize size{};
    if (ioctl(fileno(out_), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return line;
    size_t columns = 0, at = 0;
    for (; at < line.size(); ++at) {
      if ((static_cast<unsigned char>(line[at]) & 0xc0) == 0x80) continue;
      if (columns + 1 >= size.ws_col) break;
      ++columns;
    }
    return line.substr(0, at);
  }

  void clear() {
    if (shown_) std::fputs("\r\x1b[2K", out_);
    shown_ = false;
  }

  std::FILE* out_;
  bool terminal_;
  Instant start_;
  bool shown_ = false;
  std::optional<Instant> last_;
  uint64_t last_step_ = 0;
};

class JsonView final : public View {
 public:
  explicit JsonView(std::FILE* out) : out_(out) {}

  void event(Instant time, const std::string& text, const Json& fields) override {
    Json line = fields;
    line["time"] = to_rfc3339(time, 3);
    line["message"] = text;
    write(line);
  }

  void standing(Instant time, const Standing& standing) override {
    Json line{{"time", to_rfc3339(time, 3)},
              {"event", "progress"},
              {"phase", standing.phase},
              {"step", standing.step},
              {"totalSteps", standing.total_steps},
              {"tokensPerSecond", standing.tokens_per_second},
              {"ready", standing.ready},
              {"replicas", standing.replicas},
              {"goodput", standing.goodput},
              {"recoveries", standing.recoveries}};
    if (standing.loss) line["loss"] = *standing.loss;
    write(line);
  }

 private:
  void write(const Json& line) {
    std::fprintf(out_, "%s\n", line.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
    std::fflush(out_);
  }

  std::FILE* out_;
};

}  // namespace

std::string describe(const Standing& standing) {
  std::string text = "step " + std::to_string(standing.step);
  if (standing.total_steps > 0) {
    text += "/" + std::to_string(standing.total_steps) +
            format(" (%.0f%%)", 100.0 * static_cast<double>(standing.step) / static_cast<double>(standing.total_steps));
  }
  if (standing.loss) text += " · loss " + format("%.4f", *standing.loss);
  if (standing.tokens_per_second > 0) text += " · " + rate(standing.tokens_per_second);
  text += " · " + std::to_string(standing.ready) + "/" + std::to_string(standing.replicas) + " replicas";
  if (standing.spares > 0)
    text += ", " + std::to_string(standing.spares) + (standing.spares == 1 ? " spare" : " spares");
  text += " · goodput " + format("%.0f%%", 100 * standing.goodput);
  if (standing.recoveries > 0)
    text += " · " + std::to_string(standing.recoveries) + (standing.recoveries == 1 ? " recovery" : " recoveries");
  return text;
}

std::unique_ptr<View> make_text_view(std::FILE* out, bool terminal, Instant start) {
  return std::make_unique<TextView>(out, terminal, start);
}

std::unique_ptr<View> make_json_view(std::FILE* out) { return std::make_unique<JsonView>(out); }

}  // namespace pitcrew::cli
