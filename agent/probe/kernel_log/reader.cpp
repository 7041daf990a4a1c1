#include "agent/probe/kernel_log/reader.hpp"

#include <algorithm>
#include <charconv>

#include "agent/probe/kernel_log/parse.hpp"

namespace pitcrew::agent::kernel_log {
namespace {

constexpr size_t kMaxSeen = 4096;

uint64_t hash(std::string_view text) {
  // FNV-1a: stable over versions, since it is kept over restarts.
  uint64_t value = 14695981039346656037ull;
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return value;
}

std::string hex(uint64_t value) {
  char buffer[17];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value, 16);
  return error == std::errc() ? std::string(buffer, end) : "";
}

}  // namespace

std::string to_string(const Position& position) {
  std::string text = position.boot_id + " " + std::to_string(position.last.count());
  for (const uint64_t one : position.seen) text += " " + hex(one);
  return text;
}

Result<Position> parse_position(std::string_view text) {
  Position position;
  const auto bad = [&] {
    return Error(Code::kInvalidArgument, "'" + std::string(text.substr(0, 80)) +
                                             "' is no position in the kernel log; it is read from its beginning");
  };
  const size_t space = text.find(' ');
  if (space == std::string_view::npos) return bad();
  position.boot_id = text.substr(0, space);
  const char* at = text.data() + space + 1;
  const char* end = text.data() + text.size();
  int64_t last = 0;
  auto parsed = std::from_chars(at, end, last);
  if (parsed.ec != std::errc() || last < 0) return bad();
  position.last = Duration(last);
  while (parsed.ptr != end && position.seen.size() < kMaxSeen) {
    uint64_t one = 0;
    parsed = std::from_chars(parsed.ptr + 1, end, one, 16);
    if (parsed.ec != std::errc()) return bad();
    position.seen.push_back(one);
  }
  return position;
}

Reader::Reader(std::unique_ptr<Source> source, Settings settings, Position position)
    : source_(std::move(source)), settings_(std::move(settings)), position_(std::move(position)) {
  if (position_.boot_id == settings_.boot_id) {
    first_ = false;
  } else {
    position_ = {settings_.boot_id, Duration(0), {}};
  }
}

Result<std::vector<Observation>> Reader::poll(Instant now) {
  PITCREW_ASSIGN(const std::vector<Record> records, source_->read());
  std::vector<Observation> found;
  // Of the records at the position's time, those that were seen before; a source that gives all of the log gives them
  // again, one that goes on does not.
  std::vector<uint64_t> before = position_.seen;
  const Duration start = position_.last;
  const bool look_back = first_ && settings_.look_back > Duration(0);
  const Duration oldest = now - settings_.booted - settings_.look_back;
  first_ = false;
  for (const Record& record : records) {
    if (record.since_boot < start) continue;
    const uint64_t text = hash(record.text);
    if (record.since_boot == start) {
      const auto known = std::find(before.begin(), before.end(), text);
      if (known != before.end()) {
        before.erase(known);
        continue;
      }
    }
    ++lines_;
    if (record.since_boot > position_.last) {
      position_.last = record.since_boot;
      position_.seen.clear();
    }
    if (record.since_boot == position_.last && position_.seen.size() < kMaxSeen) position_.seen.push_back(text);
    if (look_back && record.since_boot < oldest) continue;
    auto observation = parse(record.text);
    if (!observation) continue;
    const size_t same = static_cast<size_t>(std::count(position_.seen.begin(), position_.seen.end(), text));
    observation->time = std::min(settings_.booted + record.since_boot, now);
    observation->id = settings_.boot_id + "/" + std::to_string(record.since_boot.count() / 1000) + "/" + hex(text) +
                      (same > 1 ? "/" + std::to_string(same) : "");
    found.push_back(std::move(*observation));
  }
  return found;
}

}  // namespace pitcrew::agent::kernel_log
