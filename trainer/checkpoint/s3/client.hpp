#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/clock.hpp"
#include "trainer/checkpoint/s3/credentials.hpp"
#include "trainer/checkpoint/s3/http.hpp"
#include "trainer/checkpoint/s3/pacer.hpp"
#include "trainer/checkpoint/s3/settings.hpp"

namespace pitcrew::trainer::s3 {

// The operations of S3 that checkpoints need, on one bucket. Each is tried again, paced, where that may help: no
// connection, one that was cut or stood still, HTTP 408, 429 and 5xx ("SlowDown"), expired keys. Keys are of the
// bucket, without a slash before them.
//
// Errors name the object, S3's code and the remedy: kNotFound, kAlreadyExists (a conditional put), kForbidden,
// kUnauthenticated, kInvalidArgument (no such bucket, another region), kUnavailable (given up), kCancelled (abort()),
// kDataLoss (an object changed while it was read). Thread-safe.
class Client {
 public:
  struct Settings {
    Http::Settings http;
    int attempts = 10;
    Duration give_up_after = minutes(5);  // no attempt begins later
    uint64_t seed = 0;
    uint32_t page = 1000;  // keys of a list's answer, at most; S3's own limit
  };
  // What an object is.
  struct Object {
    std::string key;
    uint64_t bytes = 0;
    std::string tag;  // changes with its content
  };
  struct Listing {
    std::vector<Object> objects;
    std::vector<std::string> folders;  // common prefixes, with the slash at their end
  };
  struct Part {
    int number = 0;  // from 1
    std::string tag;
  };
  struct Unfinished {
    std::string key;
    std::string upload;
  };

  // The clock outlives this.
  Client(Location location, Variables variables, const Clock& clock, Settings settings);

  const Location& location() const { return location_; }

  Status put(const std::string& key, std::span<const std::byte> content);
  // kAlreadyExists where there is one: of several who try, one succeeds, also where answers get lost.
  Status create(const std::string& key, std::span<const std::byte> content);
  Result<Object> head(const std::string& key);
  // Fills `into` from the object as head() saw it.
  Status get(const Object& object, uint64_t offset, std::span<std::byte> into);
  Result<std::string> get(const std::string& key, uint64_t limit);
  Status remove(const std::string& key);  // fine where it is absent
  // All below the prefix, page by page; with a delimiter: what is directly there.
  Result<Listing> list(const std::string& prefix, bool recursive);

  Result<std::string> begin_parts(const std::string& key);  // the upload's id
  Result<Part> put_part(const std::string& key, const std::string& upload, int number,
                        std::span<const std::byte> content);
  Status complete_parts(const std::string& key, const std::string& upload, const std::vector<Part>& parts,
                        uint64_t bytes);
  Status abort_parts(const std::string& key, const std::string& upload);  // fine where it is gone
  Result<std::vector<Unfinished>> unfinished(const std::string& prefix);

  // Ends what is under way; nothing more is sent.
  void abort();

 private:
  struct Request {
    std::string method;
    std::string key;
    std::vector<std::pair<std::string, std::string>> query = {};
    std::map<std::string, std::string> headers = {};
    std::span<const std::byte> body = {};
    std::optional<Duration> quiet_for = {};
    std::span<std::byte> into = {};
  };
  struct Answer {
    HttpAnswer http;
    int attempts = 1;
  };
  Result<Answer> send(const Request& request);
  Result<HttpAnswer> attempt(const Request& request, const std::string& payload_digest, Keys& used);
  Error refusal(const Request& request, const HttpAnswer& answer) const;
  std::string name_of(const Request& request) const;
  void encrypt(std::map<std::string, std::string>& headers) const;
  Status pause(Duration time);

  const Location location_;
  const Clock& clock_;
  const Settings settings_;
  Http http_;
  Credentials credentials_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Pacer pacer_;
};

}  // namespace pitcrew::trainer::s3
