// Prints docs/agent-metrics.md; scripts/generate puts it there.
#include <iostream>

#include "agent/metrics/description.hpp"

int main() { std::cout << pitcrew::agent::metrics_page(); }
