#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lib/base/launcher_socket.hpp"

// What launchers of one epoch say to one another over a net::PskConnection. Whoever connects asks, one request after
// another; each is a frame of JSON, answered by a frame of JSON, {"ok": true, …} or {"ok": false, "code", "message"}.
//
//   ping                      →
//   list                      → {own, peer, counted}
//   put {of, checkpoint, file, size} → ok: send the bytes now; after them a second answer
//   get {path, ranges}        → {size}, then so many bytes
//   drop {of, checkpoint}     →
namespace pitcrew::launcher::peer {

inline constexpr size_t kMaxFrame = 256 * 1024;
inline constexpr size_t kPiece = 128 * 1024;  // of a body, in memory at once
inline constexpr size_t kMostRanges = 4096;

struct Ping {};
struct List {};
struct Put {
  Slot of;
  std::string checkpoint;
  std::string file;
  uint64_t size = 0;
};
struct Get {
  std::string path;
  std::vector<launcher_socket::Fetch::Range> ranges;
};
struct Drop {
  Slot of;
  std::string checkpoint;
};
using Request = std::variant<Ping, List, Put, Get, Drop>;

struct Answer {
  std::optional<Error> error;
  uint64_t size = 0;                          // get
  std::optional<launcher_socket::Held> held;  // list
};

std::string encode(const Request& request);
std::string encode(const Answer& answer);
Result<Request> decode_request(std::string_view frame);
Result<Answer> decode_answer(std::string_view frame);

// The bytes of all ranges, or an error where one reaches beyond `file_size` or there are too many.
Result<uint64_t> total_of(const std::vector<launcher_socket::Fetch::Range>& ranges, uint64_t file_size);

}  // namespace pitcrew::launcher::peer
