#include "operator/channel/websocket_channel.hpp"

#include <any>
#include <string_view>

namespace pitcrew::control {
namespace {

constexpr std::string_view kBearer = "Bearer ";
constexpr size_t kMaxToken = 16 * 1024;
constexpr size_t kMaxQueue = 4 * 1024 * 1024;  // a table of 4,096 replicas four times over

std::string token_of(const net::WebSocketRequest& request) {
  const std::string* header = net::find_header(request.headers, "Authorization");
  if (header == nullptr || !header->starts_with(kBearer)) return "";
  return header->substr(kBearer.size());
}

}  // namespace

class WebSocketChannelServer::Session final : public ChannelSession {
 public:
  explicit Session(net::WebSocketSessionPtr session)
      : session_(std::move(session)), peer_(net::to_string(session_->peer())) {
    if (std::string* token = std::any_cast<std::string>(&session_->context())) token_ = std::move(*token);
  }

  const std::string& token() const override { return token_; }
  const std::string& peer() const override { return peer_; }
  void send(std::string message) override { session_->send(std::move(message)); }
  void close(CloseCode code, std::string reason) override { session_->close(static_cast<uint16_t>(code), reason); }

 private:
  net::WebSocketSessionPtr session_;
  std::string peer_;
  std::string token_;
};

WebSocketChannelServer::WebSocketChannelServer(WebSocketChannelSettings settings, Logger log)
    : settings_(std::move(settings)), log_(std::move(log)) {}

WebSocketChannelServer::~WebSocketChannelServer() = default;

Result<std::unique_ptr<WebSocketChannelServer>> WebSocketChannelServer::create(net::AsioLoop& loop,
                                                                               WebSocketChannelSettings settings,
                                                                               Logger log) {
  std::unique_ptr<WebSocketChannelServer> made(new WebSocketChannelServer(std::move(settings), log));
  WebSocketChannelServer* self = made.get();
  net::WebSocketServerSettings server;
  server.address = self->settings_.address;
  server.identity = self->settings_.identity;
  server.max_message_bytes = api::channel::kMaxFromLauncher;
  server.max_queue_bytes = kMaxQueue;
  server.max_connections = self->settings_.max_connections;
  net::WebSocketServerHandler handler;
  handler.on_request = [self](const net::WebSocketRequest& request, net::WebSocketAdmissionPtr admission) {
    self->asked(request, std::move(admission));
  };
  handler.on_open = [self](const net::WebSocketSessionPtr& session) { self->opened(session); };
  handler.on_message = [self](const net::WebSocketSessionPtr& session, const std::string& text) {
    self->received(session, text);
  };
  handler.on_close = [self](const net::WebSocketSessionPtr& session, const net::WebSocketClose& close) {
    self->closed(session, close);
  };
  PITCREW_ASSIGN(self->server_, net::WebSocketServer::listen(loop, std::move(server), std::move(handler), log));
  self->address_ = self->server_->address();
  self->config_.addresses = self->settings_.advertised;
  if (self->config_.addresses.empty()) self->config_.addresses.push_back(net::to_string(self->address_));
  self->config_.server_name = self->settings_.server_name;
  self->config_.ca_bundle = self->settings_.ca_bundle;
  return made;
}

void WebSocketChannelServer::start(ChannelHandler& handler) { handler_ = &handler; }

void WebSocketChannelServer::stop() {
  handler_ = nullptr;
  sessions_.clear();
  server_.reset();
}

Status WebSocketChannelServer::set_identity(const net::TlsServerIdentity& identity, const std::string& ca_bundle) {
  if (server_) PITCREW_TRY(server_->set_identity(identity));
  config_.ca_bundle = ca_bundle;
  if (handler_ != nullptr) handler_->config_changed();
  return {};
}

void WebSocketChannelServer::set_advertised(std::vector<std::string> addresses) {
  if (config_.addresses == addresses) return;
  config_.addresses = std::move(addresses);
  if (handler_ != nullptr) handler_->config_changed();
}

void WebSocketChannelServer::asked(const net::WebSocketRequest& request, net::WebSocketAdmissionPtr admission) {
  if (request.path != api::channel::kPath)
    return admission->refuse(404, std::string("the control channel is at ") + api::channel::kPath);
  if (handler_ == nullptr) return admission->refuse(503, "the operator is not ready");
  std::string token = token_of(request);
  if (token.empty() || token.size() > kMaxToken)
    return admission->refuse(401, "a bearer token is needed: the pod's token for the audience pitcrew");
  admission->accept(std::any(std::move(token)));
}

void WebSocketChannelServer::opened(const net::WebSocketSessionPtr& session) {
  if (handler_ == nullptr)
    return session->close(static_cast<uint16_t>(CloseCode::kGoingAway), "the operator is not ready");
  auto entry = std::make_shared<Session>(session);
  sessions_[session->id()] = entry;
  handler_->opened(entry);
}

void WebSocketChannelServer::received(const net::WebSocketSessionPtr& session, const std::string& text) {
  const auto found = sessions_.find(session->id());
  if (handler_ == nullptr || found == sessions_.end()) return;
  const ChannelSessionPtr entry = found->second;
  handler_->received(entry, text);
}

void WebSocketChannelServer::closed(const net::WebSocketSessionPtr& session, const net::WebSocketClose& close) {
  const auto found = sessions_.find(session->id());
  if (found == sessions_.end()) return;
  const ChannelSessionPtr entry = std::move(found->second);
  sessions_.erase(found);
  if (handler_ == nullptr) return;
  // lib/net closes with this code and these words when a ping goes unanswered.
  const bool silent =
      close.code == net::close_code::kAbnormal && close.reason.find("was silent for") != std::string::npos;
  const std::string reason = close.reason.empty() ? "code " + std::to_string(close.code) : close.reason;
  handler_->closed(entry, silent ? std::string(kFellSilent) + reason : reason);
}

}  // namespace pitcrew::control
