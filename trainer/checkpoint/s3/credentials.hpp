#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "lib/base/clock.hpp"
#include "trainer/checkpoint/s3/http.hpp"
#include "trainer/checkpoint/s3/settings.hpp"
#include "trainer/checkpoint/s3/signature.hpp"

namespace pitcrew::trainer::s3 {

// Who we are to AWS. The first of these that the environment has:
//
//   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
//   AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE: IAM roles for service accounts (sts:AssumeRoleWithWebIdentity)
//   AWS_CONTAINER_CREDENTIALS_FULL_URI, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: EKS Pod Identity
//
// Temporary keys are renewed kEarly before they end; while that fails, those at hand are used until their end. The
// token files are read each time: EKS renews them. Thread-safe: one thread renews, the others wait for it.
class Credentials {
 public:
  static constexpr Duration kEarly = minutes(5);
  static constexpr Duration kTryAgain = seconds(15);

  // All three outlive this.
  Credentials(Variables variables, std::string region, Http& http, const Clock& clock)
      : variables_(std::move(variables)), region_(std::move(region)), http_(http), clock_(clock) {}

  // kUnauthenticated: there are none, or they were refused; the message names the remedy. kUnavailable: try again.
  Result<Keys> keys();
  // The server refused these as expired: they are fetched anew next time, unless that was done already.
  void refused(const Keys& keys);

 private:
  struct Temporary {
    Keys keys;
    Instant end;
  };
  Result<Temporary> fetch();
  Result<Temporary> assume_role();
  Result<Temporary> ask_container();

  const Variables variables_;
  const std::string region_;
  Http& http_;
  const Clock& clock_;
  std::mutex mutex_;
  std::optional<Temporary> held_;
  Instant next_try_;
};

}  // namespace pitcrew::trainer::s3
