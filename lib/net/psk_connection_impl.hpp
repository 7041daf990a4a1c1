#pragma once

// Internal to lib/net.

#include "lib/net/listener.hpp"
#include "lib/net/psk.hpp"

namespace pitcrew::net::internal {

// A connection whose handshake is done, as a server hands it over.
PskConnection::Ptr accepted_psk_connection(AsioLoop& loop, Stream stream, Address peer, ConnectionSlot slot,
                                           const PskSettings& settings);

}  // namespace pitcrew::net::internal
