#include "launcher/supervise/output.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "lib/net/asio_loop.hpp"

namespace pitcrew::launcher {
namespace {

TEST(LinePrefixer, gives_each_line_its_prefix_once_it_is_whole) {
  LinePrefixer lines("[rank 3]");
  EXPECT_EQ(lines.add("hel"), "");
  EXPECT_EQ(lines.add("lo\nwor"), "[rank 3] hello\n");
  EXPECT_EQ(lines.add("ld\n\nx\n"), "[rank 3] world\n[rank 3] \n[rank 3] x\n");
  EXPECT_EQ(lines.finish(), "");
  EXPECT_EQ(lines.add("no end"), "");
  EXPECT_EQ(lines.finish(), "[rank 3] no end\n");
}

TEST(LinePrefixer, a_carriage_return_ends_a_line_as_progress_bars_write_them) {
  LinePrefixer lines("[rank 0]");
  EXPECT_EQ(lines.add("10%\r20%\r"), "[rank 0] 10%\r\n");
  EXPECT_EQ(lines.add("\nnext\r\n"), "[rank 0] 20%\r\n[rank 0] next\r\n");
}

TEST(LinePrefixer, a_long_line_goes_on_in_marked_pieces) {
  LinePrefixer lines("[rank 0]", 4);
  EXPECT_EQ(lines.add("abcdefghij"), "[rank 0] abcd\n[rank 0]+ efgh\n");
  EXPECT_EQ(lines.add("k\nl\n"), "[rank 0]+ ijk\n[rank 0] l\n");
}

struct Pipe {
  Pipe() {
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    read = Descriptor(ends[0]);
    write = Descriptor(ends[1]);
  }
  Descriptor read, write;
};

std::string take(int fd, size_t bytes) {
  std::string text(bytes, '\0');
  const ssize_t got = read(fd, text.data(), bytes);
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return text;
}

constexpr Duration kCap = seconds(60);

// The condition may be one that no event of the loop tells of.
bool wait(net::AsioLoop& loop, const std::function<bool()>& condition) {
  Loop::TimerPtr timer;
  std::function<void()> tick = [&] { timer = loop.after(milliseconds(1), tick); };
  tick();
  return loop.run_until(condition, kCap);
}

TEST(OutputWriter, passes_bytes_on_in_order_and_says_when_there_is_room_again) {
  net::AsioLoop loop;
  Pipe out;
  int room = 0;
  std::string sent, got;
  {
    OutputWriter writer(loop, out.write.get(), {.high = 100'000, .low = 10'000}, [&] { ++room; });
    for (int i = 0; sent.size() < 300'000; ++i) {
      const std::string line = "line " + std::to_string(i) + "\n";
      writer.to_stdout(line);
      sent += line;
    }
    EXPECT_TRUE(writer.full());
    while (got.size() < sent.size()) got += take(out.read.get(), 65536);
    EXPECT_TRUE(loop.run_until([&] { return room > 0; }, kCap));
    EXPECT_FALSE(writer.full());
    EXPECT_TRUE(writer.drain(kCap));
    EXPECT_EQ(writer.written(), sent.size());
  }
  EXPECT_EQ(got, sent);
  EXPECT_EQ(room, 1);
}

TEST(OutputWriter, ends_though_nobody_reads) {
  net::AsioLoop loop;
  Pipe out;
  OutputWriter writer(loop, out.write.get(), {}, [] {});
  writer.to_stdout(std::string(1'000'000, 'x'));
  EXPECT_FALSE(writer.drain(milliseconds(1)));
}

TEST(OutputWriter, goes_on_after_the_reader_has_gone) {
  net::AsioLoop loop;
  Pipe out;
  signal(SIGPIPE, SIG_IGN);
  OutputWriter writer(loop, out.write.get(), {}, [] {});
  out.read.reset();
  writer.to_stdout("nobody reads this\n");
  EXPECT_TRUE(writer.drain(kCap));
}

TEST(OutputWriter, counts_what_a_full_disk_refuses) {
  net::AsioLoop loop;
  Pipe out;
  OutputWriter writer(loop, out.write.get(), {}, [] {});
  writer.to_log(std::make_shared<Descriptor>(open("/dev/full", O_WRONLY | O_CLOEXEC)), "twelve bytes");
  EXPECT_TRUE(writer.drain(kCap));
  EXPECT_EQ(writer.lost_log_bytes(), 12u);
}

TEST(Output, a_rank_waits_while_the_reader_is_behind_and_goes_on_after) {
  net::AsioLoop loop;
  Pipe out, rank;
  std::unique_ptr<Output> output;
  OutputWriter writer(loop, out.write.get(), {.high = 64 * 1024, .low = 16 * 1024}, [&] { output->resume(); });
  output = std::make_unique<Output>(loop, writer);
  fcntl(rank.write.get(), F_SETFL, O_NONBLOCK);
  fcntl(rank.read.get(), F_SETFL, O_NONBLOCK);
  ASSERT_TRUE(output->add(Rank(0), std::move(rank.read), ""));

  std::string sent;
  uint64_t number = 0;
  std::string open_line;
  const auto write_more = [&] {
    while (true) {
      if (open_line.empty()) open_line = "line " + std::to_string(number++) + "\n";
      const ssize_t wrote = write(rank.write.get(), open_line.data(), open_line.size());
      if (wrote <= 0) return;
      sent += open_line.substr(0, static_cast<size_t>(wrote));
      open_line.erase(0, static_cast<size_t>(wrote));
    }
  };
  EXPECT_TRUE(wait(loop, [&] {
    write_more();
    return output->blocked(0);
  }));
  write_more();
  const size_t stuck_at = sent.size();
  // The rank's pipe, our queue, and the reader's pipe: nothing else takes bytes while nobody reads.
  EXPECT_LT(stuck_at, 400'000u);
  EXPECT_EQ(output->pauses(), 1u);

  // The prefix is as long as nine bytes: what comes out is known.
  std::string got;
  fcntl(out.read.get(), F_SETFL, O_NONBLOCK);
  EXPECT_TRUE(wait(loop, [&] {
    got += take(out.read.get(), 65536);
    write_more();
    return got.size() > 2'000'000;
  }));
  EXPECT_FALSE(got.empty());
  uint64_t expected = 0;
  for (size_t at = 0; got.find('\n', at) != std::string::npos; ++expected) {
    const size_t end = got.find('\n', at);
    ASSERT_EQ(got.substr(at, end - at), "[rank 0] line " + std::to_string(expected));
    at = end + 1;
  }
  EXPECT_GT(expected, 10'000u);
}

}  // namespace
}  // namespace pitcrew::launcher
