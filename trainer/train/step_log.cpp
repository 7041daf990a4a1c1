#include "trainer/train/step_log.hpp"

#include <bit>
#include <charconv>
#include <cstdio>
#include <optional>

#include "lib/base/digest.hpp"
#include "lib/base/json.hpp"

namespace pitcrew::trainer {
namespace {

constexpr uint64_t kLimit = uint64_t{4} << 30;
constexpr std::string_view kStart = "{\"step\":";

struct Line {
  Step step;
  bool evaluation = false;
};

std::optional<Line> parse(std::string_view text) {
  if (!text.starts_with(kStart) || !text.ends_with("}")) return std::nullopt;
  text.remove_prefix(kStart.size());
  Line line;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), line.step.value);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  line.evaluation = text.starts_with(",\"kind\"");
  return line;
}

// The lines that stay when training goes on from `resumed`.
std::string cut(std::string_view text, Step resumed, std::string& gap) {
  std::string kept;
  Step expected(1);
  while (!text.empty()) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) break;  // torn
    const std::string_view whole = text.substr(0, end + 1);
    text.remove_prefix(end + 1);
    const auto line = parse(whole.substr(0, end));
    if (!line || line->step > resumed) continue;
    if (!line->evaluation) {
      if (line->step != expected && gap.empty()) {
        gap = "after step " + std::to_string(expected.value - 1) + " comes step " + std::to_string(line->step.value);
      }
      expected = line->step.next();
    }
    kept += whole;
  }
  if (gap.empty() && expected <= resumed) {
    gap = "steps " + std::to_string(expected.value) + " to " + std::to_string(resumed.value) + " are missing";
  }
  return kept;
}

std::string format(Step step, const char* kind, double loss, EpochNumber epoch, uint64_t samples) {
  std::string line(kStart);
  line += std::to_string(step.value);
  if (kind != nullptr) line += ",\"kind\":\"" + std::string(kind) + "\"";
  return line + ",\"loss\":" + Json(loss).dump() + ",\"bits\":\"" + hex64(std::bit_cast<uint64_t>(loss)) +
         "\",\"epoch\":" + std::to_string(epoch.value) + ",\"samples\":" + std::to_string(samples);
}

// Four digits are plenty for a time.
std::string number(const char* name, double value) {
  char text[64];
  std::snprintf(text, sizeof text, ",\"%s\":%.4g", name, value);
  return text;
}

}  // namespace

Result<StepLog> StepLog::open(FileSystem& files, const std::string& folder, Step resumed, EpochNumber epoch) {
  if (is_object_storage(folder)) {
    PITCREW_ASSIGN(auto storage, open_storage(files, folder));
    std::string gap;
    PITCREW_ASSIGN(auto parts, StepParts::open(std::move(storage), resumed, epoch, gap));
    return StepLog(std::move(parts), epoch, gap.empty() ? "" : folder + "/steps: " + gap);
  }
  const std::string path = join_path(folder, "steps.jsonl");
  PITCREW_TRY(make_folders(files, folder));
  auto text = read_file(files, path, kLimit);
  if (!text && text.error().code != Code::kNotFound) return text.error();
  std::string gap;
  const std::string kept = cut(text ? *text : "", resumed, gap);
  PITCREW_TRY(replace_file(files, path, kept));
  PITCREW_ASSIGN(std::unique_ptr<File> file, files.open(path, FileSystem::Open::kUpdate));
  return StepLog(std::move(file), kept.size(), epoch, gap.empty() ? "" : path + ": " + gap);
}

Status StepLog::append(Step step, double loss, uint64_t samples, const StepMeasure& measure) {
  std::string line = format(step, nullptr, loss, epoch_, samples) + number("seconds", measure.seconds) +
                     number("tokensPerSecond", measure.tokens_per_second) + number("dataWait", measure.data_wait) +
                     number("stall", measure.stall) + ",\"memory\":" + std::to_string(measure.memory);
  if (measure.mfu) line += number("mfu", *measure.mfu);
  if (!measure.reproducible) line += ",\"reproducible\":false";
  return write(step, line + "}\n");
}

Status StepLog::append_evaluation(Step step, double loss, uint64_t samples) {
  return write(step, format(step, "evaluation", loss, epoch_, samples) + "}\n");
}

Status StepLog::sync() {
  if (file_) return file_->sync();
  parts_->close();
  return {};
}

Status StepLog::settle() { return parts_ ? parts_->settle() : Status(); }

void StepLog::abort() {
  if (parts_) parts_->abort();
}

Status StepLog::write(Step step, const std::string& line) {
  if (parts_) {
    parts_->append(step, line);
    return {};
  }
  PITCREW_TRY(file_->write(std::as_bytes(std::span(line)), size_));
  size_ += line.size();
  return {};
}

}  // namespace pitcrew::trainer
