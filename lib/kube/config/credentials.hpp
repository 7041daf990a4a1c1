#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "lib/base/log.hpp"
#include "lib/kube/config/cluster_config.hpp"
#include "lib/net/asio_loop.hpp"
#include "lib/net/tls.hpp"

namespace pitcrew::kube {

// A file whose content is read again as time passes; where it can't be read, the last content stays.
class WatchedFile {
 public:
  explicit WatchedFile(std::string path) : path_(std::move(path)) {}
  // Content at most `max_age` old; an error only where it was never read.
  Result<std::string> content(Instant now, Duration max_age);
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::string content_;
  std::optional<Instant> read_at_;
};

// Who we are to an API server and how its connections do TLS, kept up to date: files are read again, exec plugins run
// when their credential has expired, a rejected credential is replaced at once. Owned by a transport; lives on its
// loop; destroying it drops every function.
class Credentials {
 public:
  Credentials(net::AsioLoop& loop, ClusterConfig config, Logger log);
  ~Credentials();
  Credentials(const Credentials&) = delete;
  Credentials& operator=(const Credentials&) = delete;

  // The bearer token to send, or "" where there is none; kUnauthenticated where it can't be had. May be called inside
  // the call.
  void token(std::function<void(Result<std::string>)> done);
  // The server said 401 to this token: whether another try may go better, with what token() says now.
  bool rejected(const std::string& token);
  // For a new connection. Its settings change with the files.
  Result<net::TlsClientPtr> tls();
  // What tls() was made of when it was asked last.
  const net::TlsClientSettings& tls_settings() const { return tls_settings_; }
  // TLS was refused: looks at the files now; whether tls() has changed.
  bool reload_tls();
  // Counts changes of tls(): what was connected before one should be connected anew.
  uint64_t tls_generation() const { return tls_generation_; }

 private:
  struct Issued {  // by the exec plugin
    std::string token;
    std::optional<net::TlsClientIdentity> identity;
    std::optional<Instant> expires;
  };

  Result<std::string> file_token(Duration max_age);
  bool issued_is_good() const;
  void run_plugin();
  void plugin_ended(Result<std::string> output);
  Result<Issued> decode(const std::string& output) const;
  Result<net::TlsClientSettings> read_tls_settings(Duration max_age);
  Result<net::TlsClientPtr> tls(Duration max_age);

  net::AsioLoop& loop_;
  ClusterConfig config_;
  Logger log_;
  std::string server_name_;
  std::optional<WatchedFile> token_file_;
  std::optional<WatchedFile> ca_file_;
  std::optional<WatchedFile> certificate_file_;
  std::optional<WatchedFile> key_file_;
  std::string last_token_;  // that token() gave
  std::optional<Issued> issued_;
  class Plugin;
  std::unique_ptr<Plugin> plugin_;
  std::vector<std::function<void(Result<std::string>)>> waiting_;
  net::TlsClientSettings tls_settings_;
  net::TlsClientPtr tls_;
  uint64_t tls_generation_ = 0;
};

}  // namespace pitcrew::kube
