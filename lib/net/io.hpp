#pragma once

// Internal to lib/net: what its sources call Asio's things.

#include <utility>  // before Asio: its coroutine header (1.74) uses std::exchange without it

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/system/error_code.hpp>

#include "lib/net/address.hpp"
#include "lib/net/asio_loop.hpp"

namespace pitcrew::net::internal {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;
using Executor = asio::io_context::executor_type;
using Socket = asio::basic_stream_socket<tcp, Executor>;

asio::io_context& context_of(AsioLoop& loop);

Result<tcp::endpoint> endpoint_of(const Address& address);
Address address_of(const tcp::endpoint& endpoint);

// An Asio error as ours: `what: message`, the code by the kind of the failure.
Error io_error(std::string_view what, const ErrorCode& error);

}  // namespace pitcrew::net::internal
