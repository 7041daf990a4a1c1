#pragma once

#include <string>

namespace pitcrew::cli {

struct RunOptions {
  std::string manifest;
  unsigned nodes = 0;  // 0: one for each replica and spare, and one more
  std::string folder;  // empty: .pitcrew/<job>
  std::string chaos;   // see chaos.hpp
  std::string report;  // a file; empty: none
  bool serve = false;  // the API and metrics on the loopback interface
  bool json = false;   // events as JSON lines on stdout
};

}  // namespace pitcrew::cli
