#include "launcher/app/run_state.hpp"

#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include "launcher/supervise/proc.hpp"
#include "launcher/supervise/process.hpp"
#include "lib/base/json.hpp"

namespace pitcrew::launcher {
namespace {

constexpr char kFile[] = "/state.json";

}  // namespace

RunState RunState::load(const std::string& folder) {
  RunState state;
  const auto json = parse_json(read_proc(folder + kFile));
  if (!json || !json->is_object()) return state;
  Problems problems;
  ObjectReader reader(*json, "", problems);
  reader.read("term", state.seen.term);
  reader.read("number", state.seen.number);
  std::string rhythm;
  if (reader.read("rhythm", rhythm)) state.rhythm = Rhythm::load(rhythm);
  return state;
}

Status RunState::save(const std::string& folder) const {
  const std::string path = folder + kFile;
  const std::string text =
      Json{{"term", seen.term.value}, {"number", seen.number.value}, {"rhythm", rhythm.save()}}.dump();
  const Descriptor file(open((path + ".tmp").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file) return errno_error("write " + path, errno);
  if (write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return errno_error("write " + path, errno);
  if (rename((path + ".tmp").c_str(), path.c_str()) != 0) return errno_error("replace " + path, errno);
  return {};
}

}  // namespace pitcrew::launcher
