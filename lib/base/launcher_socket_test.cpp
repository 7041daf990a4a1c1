#include "lib/base/launcher_socket.hpp"

#include <gtest/gtest.h>

namespace pitcrew::launcher_socket {
namespace {

TEST(LauncherSocket, every_request_survives_its_line) {
  const std::vector<Request> requests{
      Push{"step-20-c3", {"slice-0.safetensors", "slice-0.json"}},
      List{},
      Fetch{Slot(2), "own/step-20-c3/slice-1.safetensors", {{0, 8}, {4096, 1048576}}, "x"},
      Counted{"step-20-c3", Step(20)},
      Drop{"step-10-c3"},
      Saved{Step(500), "/checkpoints/step-500-c3", 1234, 2},
      Evidence{Rank(3), "lost-peer", "connection reset", Rank(5)},
      Evidence{Rank(3), "nonfinite", "twice", std::nullopt, Step(42), "d1"}};
  uint64_t id = 1;
  for (const Request& request : requests) {
    const std::string line = encode(id, request);
    EXPECT_EQ(line.back(), '\n');
    const auto decoded = decode_request(line);
    ASSERT_TRUE(decoded.ok()) << decoded.error().message;
    EXPECT_EQ(decoded->first, id);
    EXPECT_EQ(decoded->second.index(), request.index());
    EXPECT_EQ(encode(id, decoded->second), line);
    ++id;
  }
}

TEST(LauncherSocket, an_answer_carries_its_error_and_what_is_held) {
  Answer answer;
  answer.id = 9;
  answer.error = Error(Code::kUnavailable, "slot 1 can't be reached");
  answer.copies = {Slot(1)};
  answer.held = {
      {Slot(0), true, {"step-20-c3/slice-0.json"}, {{Slot(1), {"step-20-c3/slice-1.json"}}}, {"step-20-c3"}}};
  const auto decoded = decode_answer(encode(answer));
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  EXPECT_EQ(decoded->error->code, Code::kUnavailable);
  EXPECT_EQ(encode(*decoded), encode(answer));
}

TEST(LauncherSocket, nonsense_is_refused_with_its_reason) {
  EXPECT_FALSE(decode_request("{}").ok());
  EXPECT_FALSE(decode_request(R"({"op":"explode"})").ok());
  EXPECT_FALSE(decode_request(R"({"op":"fetch","slot":-1})").ok());
  EXPECT_FALSE(decode_request(std::string(kMaxLine + 1, ' ')).ok());
}

}  // namespace
}  // namespace pitcrew::launcher_socket
