#pragma once

#include <map>
#include <memory>
#include <string>

#include <sys/types.h>

#include "lib/base/testing/temp_folder.hpp"
#include "trainer/checkpoint/s3/s3_storage.hpp"

namespace pitcrew::trainer::testing {

// A real S3 server, versitygw, on a folder of its own with one bucket. Its program comes from the cache, where
// `tests/cluster/cluster build versitygw` puts it. Ends, with all it holds, with the test program.
class S3Server {
 public:
  static constexpr char kBucket[] = "checkpoints";
  // The program's, or null where it isn't built or doesn't start; why_not() says why.
  static S3Server* shared();
  static std::string why_not();
  ~S3Server();

  uint16_t port() const { return port_; }
  // AWS's variables for it, or for what stands before it on another port.
  std::map<std::string, std::string> environment(uint16_t port = 0) const;
  s3::Variables variables(uint16_t port = 0) const;
  // s3://checkpoints/<a number that was not used before>
  std::string new_path();

 private:
  S3Server() = default;
  bool start(const std::string& program);

  TempFolder folder_;
  pid_t pid_ = -1;
  uint16_t port_ = 0;
  int paths_ = 0;
};

// Keys after one another in memory, as s3::Variables.
s3::Variables variables_of(std::map<std::string, std::string> set);

#define PITCREW_NEEDS_S3_SERVER()                                 \
  if (::pitcrew::trainer::testing::S3Server::shared() == nullptr) \
  GTEST_SKIP() << ::pitcrew::trainer::testing::S3Server::why_not()

}  // namespace pitcrew::trainer::testing
