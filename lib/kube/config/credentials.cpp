#include "lib/kube/config/credentials.hpp"

#include "lib/base/file.hpp"
#include "lib/base/yaml.hpp"
#include "lib/kube/config/command.hpp"
#include "lib/kube/types/fields.hpp"
#include "lib/net/crypto.hpp"

namespace pitcrew::kube {
namespace {

constexpr uint64_t kMaxFile = 1024 * 1024;
// client-go re-reads a token about every minute (transport/token_source.go); a small file costs less than being late.
constexpr Duration kTokenAge = seconds(10);
constexpr Duration kTlsAge = seconds(10);
// A token that ends while its request is under way is refused.
constexpr Duration kExpiryLeeway = seconds(10);

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r\n") + 1 - begin);
}

std::optional<WatchedFile> watched(const std::string& data, const std::string& path) {
  if (!data.empty() || path.empty()) return std::nullopt;
  return WatchedFile(path);
}

}  // namespace

Result<std::string> WatchedFile::content(Instant now, Duration max_age) {
  if (read_at_ && now - *read_at_ < max_age) return content_;
  auto text = read_file(posix_file_system(), path_, kMaxFile);
  if (text && !text->empty()) {
    content_ = *std::move(text);
    read_at_ = now;
    return content_;
  }
  if (read_at_) return content_;  // the last one is better than none; looked at again next time
  if (!text) return text.error();
  return Error(Code::kDataLoss, path_ + " is empty");
}

// The exec plugin under way.
class Credentials::Plugin {
 public:
  std::unique_ptr<Command> command;
};

Credentials::Credentials(net::AsioLoop& loop, ClusterConfig config, Logger log)
    : loop_(loop), config_(std::move(config)), log_(std::move(log)) {
  const auto url = parse_server_url(config_.server);
  server_name_ = !config_.tls_server_name.empty() ? config_.tls_server_name : url ? url->host : "";
  if (!config_.token_file.empty()) token_file_.emplace(config_.token_file);
  ca_file_ = watched(config_.ca_pem, config_.ca_file);
  certificate_file_ = watched(config_.client_certificate_pem, config_.client_certificate_file);
  key_file_ = watched(config_.client_key_pem, config_.client_key_file);
}

Credentials::~Credentials() = default;

Result<std::string> Credentials::file_token(Duration max_age) {
  auto content = token_file_->content(loop_.now(), max_age);
  if (!content) return Error(Code::kUnauthenticated, "token: " + content.error().message);
  return trimmed(*content);
}

void Credentials::token(std::function<void(Result<std::string>)> done) {
  if (token_file_) {
    auto token = file_token(kTokenAge);
    if (token) last_token_ = *token;
    return done(std::move(token));
  }
  if (!config_.exec) return done(config_.token);
  if (issued_is_good()) return done(issued_->token);
  waiting_.push_back(std::move(done));
  if (!plugin_) run_plugin();
}

bool Credentials::rejected(const std::string& token) {
  if (token_file_) {
    const auto now = file_token(Duration(0));
    return now && *now != token;
  }
  if (!config_.exec) return false;
  if (issued_ && issued_->token == token) {
    log_.info("the credential of the exec plugin was refused; running it again", {{"command", config_.exec->command}});
    issued_.reset();
  }
  return true;
}

bool Credentials::issued_is_good() const {
  return issued_ && (!issued_->expires || loop_.now() + kExpiryLeeway < *issued_->expires);
}

void Credentials::run_plugin() {
  const ExecPlugin& plugin = *config_.exec;
  CommandSettings settings;
  settings.argv.push_back(plugin.command);
  settings.argv.insert(settings.argv.end(), plugin.args.begin(), plugin.args.end());
  settings.env = plugin.env;
  Json info = {{"apiVersion", plugin.api_version}, {"kind", "ExecCredential"}, {"spec", {{"interactive", false}}}};
  if (plugin.provide_cluster_info) {
    Json& cluster = info["spec"]["cluster"];
    cluster["server"] = config_.server;
    if (!config_.tls_server_name.empty()) cluster["tls-server-name"] = config_.tls_server_name;
    if (config_.insecure_skip_tls_verify) cluster["insecure-skip-tls-verify"] = true;
    std::string ca = config_.ca_pem;
    if (ca_file_) ca = ca_file_->content(loop_.now(), kTlsAge).value_or("");
    if (!ca.empty()) cluster["certificate-authority-data"] = net::base64_encode(ca);
  }
  settings.env.emplace_back("KUBERNETES_EXEC_INFO", info.dump());
  plugin_ = std::make_unique<Plugin>();
  plugin_->command = Command::run(loop_, std::move(settings), [this](Result<CommandResult> result) {
    if (!result) return plugin_ended(result.error());
    if (result->exit_code != 0) {
      return plugin_ended(
          Error(Code::kUnauthenticated, "it ended with code " + std::to_string(result->exit_code) +
                                            (result->errors.empty() ? "" : ": " + trimmed(result->errors))));
    }
    plugin_ended(std::move(result->output));
  });
}

void Credentials::plugin_ended(Result<std::string> output) {
  const auto ended = std::move(plugin_);
  Result<Issued> issued = output ? decode(*output) : Result<Issued>(output.error());
  Result<std::string> token = std::string();
  if (issued) {
    issued_ = *std::move(issued);
    token = issued_->token;
  } else {
    const std::string hint = config_.exec->install_hint.empty() ? "" : "; " + config_.exec->install_hint;
    token =
        Error(Code::kUnauthenticated, "exec plugin '" + config_.exec->command + "': " + issued.error().message + hint);
    log_.warning("no credential", {{"error", token.error().message}});
  }
  // A callback may destroy this.
  for (const auto& done : std::exchange(waiting_, {})) done(token);
}

Result<Credentials::Issued> Credentials::decode(const std::string& output) const {
  auto documents = parse_yaml(output);  // JSON is YAML
  if (!documents || documents->empty() || !documents->front().json.is_object())
    return Error(Code::kUnauthenticated, "what it wrote is no ExecCredential");
  const Json& credential = documents->front().json;
  std::string version;
  fields::read(credential, "apiVersion", version);
  if (version != config_.exec->api_version) {
    return Error(Code::kUnauthenticated,
                 "it answers with apiVersion '" + version + "', asked was " + config_.exec->api_version);
  }
  const Json* status = fields::find(credential, "status");
  if (status == nullptr) return Error(Code::kUnauthenticated, "its ExecCredential has no status");
  Issued issued;
  net::TlsClientIdentity identity;
  fields::read(*status, "token", issued.token);
  fields::read(*status, "expirationTimestamp", issued.expires);
  fields::read(*status, "clientCertificateData", identity.certificate_pem);
  fields::read(*status, "clientKeyData", identity.key_pem);
  if (!identity.certificate_pem.empty() && !identity.key_pem.empty()) issued.identity = std::move(identity);
  if (issued.token.empty() && !issued.identity)
    return Error(Code::kUnauthenticated, "its ExecCredential has neither a token nor a certificate with its key");
  return issued;
}

Result<net::TlsClientSettings> Credentials::read_tls_settings(Duration max_age) {
  const Instant now = loop_.now();
  net::TlsClientSettings settings;
  settings.server_name = server_name_;
  settings.insecure = config_.insecure_skip_tls_verify;
  settings.ca_bundle_pem = config_.ca_pem;
  if (ca_file_) {
    PITCREW_ASSIGN(settings.ca_bundle_pem, ca_file_->content(now, max_age));
  }
  net::TlsClientIdentity identity{config_.client_certificate_pem, config_.client_key_pem};
  if (certificate_file_) {
    PITCREW_ASSIGN(identity.certificate_pem, certificate_file_->content(now, max_age));
  }
  if (key_file_) {
    PITCREW_ASSIGN(identity.key_pem, key_file_->content(now, max_age));
  }
  if (issued_ && issued_->identity) identity = *issued_->identity;
  if (!identity.certificate_pem.empty()) settings.identity = std::move(identity);
  return settings;
}

Result<net::TlsClientPtr> Credentials::tls() { return tls(kTlsAge); }

bool Credentials::reload_tls() {
  const uint64_t before = tls_generation_;
  return tls(Duration(0)) && tls_generation_ != before;
}

Result<net::TlsClientPtr> Credentials::tls(Duration max_age) {
  auto settings = read_tls_settings(max_age);
  if (!settings && tls_) return tls_;
  if (!settings) return settings.error();
  if (tls_ && *settings == tls_settings_) return tls_;
  auto made = net::TlsClient::make(*settings);
  if (made) {
    if (tls_) log_.info("TLS roots or certificates have changed");
    tls_ = *std::move(made);
    tls_settings_ = *std::move(settings);
    ++tls_generation_;
    return tls_;
  }
  // Half of a pair may have been written: the last good one stays.
  log_.warning("TLS settings can't be used", {{"error", made.error().message}});
  if (tls_) return tls_;
  return made.error();
}

}  // namespace pitcrew::kube
