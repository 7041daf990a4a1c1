#include <cstdio>
#include <cstdlib>

#include "lib/local/node/node_shim.hpp"

// pitcrew-node-shim FD: a simulated node for tests; `pitcrew run` starts its nodes from its own program.
int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: pitcrew-node-shim FD: the socket of the kubelet that started it\n");
    return 64;
  }
  pitcrew::local::node_shim_main(std::atoi(argv[1]));
}
