#include "trainer/checkpoint/group.hpp"

#include <algorithm>
#include <cstring>

namespace pitcrew::trainer {

Result<std::vector<uint64_t>> Group::gather(uint64_t word) {
  std::vector<uint64_t> all(size(), word);
  if (comm_ != nullptr)
    PITCREW_TRY(comm_->all_gather(std::as_bytes(std::span(&word, 1)), std::as_writable_bytes(std::span(all))));
  return all;
}

Result<std::vector<std::string>> Group::gather(const std::string& text) {
  if (comm_ == nullptr) return std::vector{text};
  PITCREW_ASSIGN(const auto sizes, gather(static_cast<uint64_t>(text.size())));
  const uint64_t widest = *std::max_element(sizes.begin(), sizes.end());
  if (widest == 0) return std::vector<std::string>(size());
  std::string mine = text, all(widest * size(), '\0');
  mine.resize(widest);
  PITCREW_TRY(comm_->all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all))));
  std::vector<std::string> texts;
  for (uint32_t rank = 0; rank < size(); ++rank) texts.push_back(all.substr(rank * widest, sizes[rank]));
  return texts;
}

Result<std::vector<Json>> Group::gather(const Json& json) {
  PITCREW_ASSIGN(const auto texts, gather(json.dump(-1, ' ', false, Json::error_handler_t::replace)));
  std::vector<Json> all;
  for (const std::string& text : texts) {
    PITCREW_ASSIGN(Json value, parse_json(text));
    all.push_back(std::move(value));
  }
  return all;
}

Result<std::string> Group::broadcast(std::string text, uint32_t root) {
  if (comm_ == nullptr) return text;
  uint64_t length = text.size();
  PITCREW_TRY(comm_->broadcast(std::as_writable_bytes(std::span(&length, 1)), root));
  text.resize(length);
  if (length > 0) PITCREW_TRY(comm_->broadcast(std::as_writable_bytes(std::span(text)), root));
  return text;
}

Result<std::optional<Error>> Group::agree(const Status& mine) {
  PITCREW_ASSIGN(const auto codes, gather(mine ? uint64_t{0} : static_cast<uint64_t>(mine.error().code) + 1));
  if (std::all_of(codes.begin(), codes.end(), [](uint64_t code) { return code == 0; })) return std::optional<Error>();
  PITCREW_ASSIGN(const auto messages, gather(mine ? std::string() : mine.error().message));
  Code code = Code::kInternal;
  std::string message;
  for (uint32_t rank = size(); rank-- > 0;) {
    if (codes[rank] != 0) code = static_cast<Code>(codes[rank] - 1);
  }
  for (uint32_t rank = 0; rank < size(); ++rank) {
    if (codes[rank] == 0) continue;
    if (!message.empty()) message += "; ";
    message += (size() > 1 ? "rank " + std::to_string(rank) + ": " : "") + messages[rank];
  }
  return std::optional(Error(code, message));
}

Status Group::share(const std::vector<std::span<std::byte>>& blocks) {
  if (comm_ == nullptr) return {};
  std::vector<Comm::Send> sends;
  std::vector<Comm::Receive> receives;
  for (uint32_t peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    if (!blocks[rank()].empty()) sends.push_back({peer, blocks[rank()]});
    if (!blocks[peer].empty()) receives.push_back({peer, blocks[peer]});
  }
  return comm_->exchange(sends, receives);
}

}  // namespace pitcrew::trainer
