#pragma once

#include <string>

#include <sys/types.h>

namespace pitcrew::bench {

// The API server in memory behind TLS, in a child process, with so many pods like real ones in namespace "bench". Fork
// it before anything else runs. Killed by the destructor.
class BenchServer {
 public:
  explicit BenchServer(int pods);
  ~BenchServer();
  BenchServer(const BenchServer&) = delete;
  BenchServer& operator=(const BenchServer&) = delete;

  const std::string& url() const { return url_; }
  const std::string& ca_pem() const { return ca_pem_; }

 private:
  pid_t pid_ = 0;
  std::string url_;
  std::string ca_pem_;
};

}  // namespace pitcrew::bench
