#pragma once

#include <memory>
#include <string>
#include <vector>

#include "launcher/supervise/text.hpp"
#include "launcher/supervise/writer.hpp"
#include "lib/base/strong.hpp"
#include "lib/net/asio_loop.hpp"

namespace pitcrew::launcher {

// Splits what a rank writes into lines and gives each its prefix. A line ends at a line feed, or at a carriage return
// as progress bars write them. A line longer than the limit is passed on in pieces, those after the first marked `[rank
// N]+ `. Nothing is lost and nothing changes its order within a rank.
class LinePrefixer {
 public:
  explicit LinePrefixer(std::string name, size_t longest = 16 * 1024) : name_(std::move(name)), longest_(longest) {}
  // The lines that are whole now, with their prefixes.
  std::string add(std::string_view bytes);
  // What is left without an end of line, given one.
  std::string finish();

 private:
  void emit(std::string& out, std::string_view line);

  std::string name_;
  size_t longest_;
  std::string open_;        // the start of a line
  bool continued_ = false;  // a piece of this line has gone already
};

// The output of the ranks of one epoch: read from their pipes, kept (the last 64 KiB of each), written to stdout with a
// prefix and to a log file without. While whoever reads stdout is behind, nothing more is read, so that a rank that
// goes on writing waits as it would on any pipe. On the loop.
class Output {
 public:
  Output(net::AsioLoop& loop, OutputWriter& writer) : loop_(loop), writer_(writer) {}

  // Adds the next local rank. `log_path`: empty for none; a file that can't be opened is an error and nothing is added.
  Status add(Rank rank, Descriptor pipe, const std::string& log_path);
  // Reads what the rank has left in its pipe, whether or not the reader is behind (a pipe is bounded), and what of a
  // line is still open. For a rank that has ended.
  void finish(size_t local);
  // There is room again: reads go on.
  void resume();

  std::string_view tail(size_t local) const { return streams_[local]->tail.view(); }
  std::string_view since(size_t local, uint64_t position) const { return streams_[local]->tail.since(position); }
  uint64_t total(size_t local) const { return streams_[local]->tail.total(); }
  // Whether the rank waits for the reader, or will with its next write.
  bool blocked(size_t local) const;
  size_t size() const { return streams_.size(); }
  uint64_t pauses() const { return pauses_; }

 private:
  struct Stream {
    Stream(Rank r, Descriptor p) : rank(r), pipe(std::move(p)), prefixer("[rank " + std::to_string(r.value) + "]") {}
    Rank rank;
    Descriptor pipe;
    LinePrefixer prefixer;
    Tail tail;
    std::shared_ptr<Descriptor> log;
    net::AsioLoop::WatchPtr watch;
    bool ended = false;
  };
  // Whether there may be more.
  bool read_some(Stream& stream);
  void watch(Stream& stream);
  void on_readable(Stream& stream);

  net::AsioLoop& loop_;
  OutputWriter& writer_;
  std::vector<std::unique_ptr<Stream>> streams_;
  bool paused_ = false;
  uint64_t pauses_ = 0;
};

}  // namespace pitcrew::launcher
