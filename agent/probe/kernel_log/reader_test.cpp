#include "agent/probe/kernel_log/reader.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace pitcrew::agent::kernel_log {
namespace {

const Instant kBooted = Instant(seconds(1'700'000'000));

// A ring buffer as syslog(2) shows it: all of it at every call.
struct Ring {
  std::string text;
  bool refuses = false;
};
class RingSource final : public Source {
 public:
  explicit RingSource(Ring& ring) : ring_(ring) {}
  Result<std::vector<Record>> read() override {
    if (ring_.refuses) return Error(Code::kForbidden, "no");
    return split_syslog(ring_.text);
  }

 private:
  Ring& ring_;
};

std::string line(const std::string& time, int code) {
  return "<4>[" + time + "] NVRM: Xid (PCI:0000:05:00): " + std::to_string(code) + ", x\n";
}

Reader reader(Ring& ring, Position position = {}, Duration look_back = Duration(0)) {
  return Reader(std::make_unique<RingSource>(ring), {"boot-1", kBooted, look_back}, std::move(position));
}

std::vector<int> codes(Reader& reader) {
  std::vector<int> found;
  const auto polled = reader.poll(kBooted + hours(1));
  for (const Observation& one : *polled) found.push_back(static_cast<int>(one.code.value_or(0)));
  return found;
}

TEST(KernelLogReader, gives_each_line_once_though_the_log_is_shown_again) {
  Ring ring{line("    1.000001", 31) + line("    1.000002", 43)};
  Reader one = reader(ring);
  EXPECT_EQ(codes(one), (std::vector{31, 43}));
  EXPECT_TRUE(codes(one).empty());
  ring.text += line("    2.500000", 79);
  EXPECT_EQ(codes(one), (std::vector{79}));
}

TEST(KernelLogReader, tells_lines_of_the_same_microsecond_apart) {
  Ring ring{line("    1.000001", 31)};
  Reader one = reader(ring);
  EXPECT_EQ(codes(one), (std::vector{31}));
  ring.text += line("    1.000001", 43) + line("    1.000001", 31);
  EXPECT_EQ(codes(one), (std::vector{43, 31}));
  EXPECT_TRUE(codes(one).empty());
}

TEST(KernelLogReader, neither_repeats_nor_misses_over_a_restart) {
  Ring ring{line("    1.000001", 31) + line("    1.000001", 43)};
  Position position;
  {
    Reader one = reader(ring);
    EXPECT_EQ(codes(one), (std::vector{31, 43}));
    position = one.position();
  }
  ring.text += line("    1.000001", 45) + line("    3.000000", 79);
  const auto kept = parse_position(to_string(position));
  ASSERT_TRUE(kept);
  EXPECT_EQ(*kept, position);
  Reader two = reader(ring, *kept);
  EXPECT_EQ(codes(two), (std::vector{45, 79}));
}

TEST(KernelLogReader, begins_anew_after_a_reboot) {
  Ring ring{line("    1.000001", 31)};
  Reader one = reader(ring, {"boot-0", hours(5), {}});
  EXPECT_EQ(codes(one), (std::vector{31}));
}

TEST(KernelLogReader, gives_the_same_ids_when_its_position_was_lost) {
  Ring ring{line("    1.000001", 31) + line("    1.000001", 31)};
  Reader one = reader(ring), two = reader(ring);
  const auto a = one.poll(kBooted + hours(1)), b = two.poll(kBooted + hours(1));
  ASSERT_EQ(a->size(), 2u);
  EXPECT_EQ((*a)[0].id, (*b)[0].id);
  EXPECT_EQ((*a)[1].id, (*b)[1].id);
  EXPECT_NE((*a)[0].id, (*a)[1].id);
  EXPECT_EQ((*a)[0].time, kBooted + std::chrono::microseconds(1'000'001));
}

TEST(KernelLogReader, looks_back_only_so_far_when_it_has_no_position) {
  Ring ring{line("   60.000000", 31) + line(" 3590.000000", 43)};
  Reader one = reader(ring, {}, minutes(5));
  EXPECT_EQ(codes(one), (std::vector{43}));
}

TEST(KernelLogReader, keeps_its_position_when_the_log_cannot_be_read) {
  Ring ring{line("    1.000001", 31)};
  Reader one = reader(ring);
  EXPECT_EQ(codes(one), (std::vector{31}));
  ring.refuses = true;
  EXPECT_FALSE(one.poll(kBooted + hours(1)));
  ring.refuses = false;
  EXPECT_TRUE(codes(one).empty());
}

TEST(KernelLogReader, reads_a_pipe_in_both_forms_and_in_pieces) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
  Reader one(descriptor_source(ends[0]), {"boot-1", kBooted, Duration(0)}, {});
  const auto put = [&](const std::string& text) {
    ASSERT_EQ(write(ends[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  };
  EXPECT_TRUE(codes(one).empty());
  put("4,100,1000001,-;NVRM: Xid (PCI:0000:05:00): 31, x\n SUBSYSTEM=pci\n4,101,1000001,-;NVRM: Xi");
  EXPECT_EQ(codes(one), (std::vector{31}));
  put("d (PCI:0000:05:00): 43, x\n" + line("    1.000001", 79));
  EXPECT_EQ(codes(one), (std::vector{43, 79}));
  close(ends[1]);
  EXPECT_TRUE(codes(one).empty());
}

TEST(KernelLogSource, takes_lines_apart_with_and_without_priority_and_task) {
  const auto records =
      split_syslog("<6>[    0.000000] one\n[   12.000345] two\n<30>[  1.5] bad\n<6>[    3.000001][  T42] three\nx");
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[1].since_boot, seconds(12) + std::chrono::microseconds(345));
  EXPECT_EQ(records[2].text, "three");
  EXPECT_FALSE(split_kmsg(" SUBSYSTEM=pci"));
  EXPECT_FALSE(split_kmsg("6,1,99999999999999999999,-;x"));
}

TEST(KernelLogPosition, refuses_what_is_none) {
  EXPECT_FALSE(parse_position(""));
  EXPECT_FALSE(parse_position("boot -5"));
  EXPECT_FALSE(parse_position("boot 5 zz"));
}

}  // namespace
}  // namespace pitcrew::agent::kernel_log
