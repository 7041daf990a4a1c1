#pragma once

namespace pitcrew::local {

// A simulated node as a process: the parent of its containers. It takes orders as JSON lines on a Unix socket and tells
// what ended; when the socket closes, or on SIGTERM, it kills everything it ever started and ends. A sub-reaper in a
// session of its own; when it is killed itself, its containers die with it. Single-threaded. Ends the process.
//
//   → {"do": "start", "id", "argv", "env", "folder", "log"}, {"do": "signal", "id", "signal"}, {"do": "kill", "id"},
//   {"do": "freeze"}, {"do": "off"} ← {"event": "booted"}, {"event": "exited", "id", "code", "signal", "oom",
//   "start_failed", "message"}
[[noreturn]] void node_shim_main(int fd);

}  // namespace pitcrew::local
