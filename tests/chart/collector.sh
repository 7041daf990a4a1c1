#!/usr/bin/env bash
# examples/telemetry/collector.yaml in the real OpenTelemetry collector, with pods of a real API server, the operator's, launchers'
# and agents' own metrics and logs, and what plays AWS (aws.py). Exit code 77, with the reason, where there is no Go to build the
# collector with, or no Prometheus.
#
#   tests/chart/collector.sh BIN     BIN holds pitcrew, pitcrew-launcher, pitcrew-train and dashboards_agent_page
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"

programs=$(realpath "${1:?say where pitcrew, pitcrew-launcher, pitcrew-train and dashboards_agent_page are}")
cd "$ROOT"
if ! command -v prometheus >/dev/null || ! python3 -c 'import yaml' 2>/dev/null; then
  echo "not run: no prometheus or no PyYAML (scripts/setup installs them)"
  exit 77
fi
tests/cluster/cluster build etcd kube-apiserver kubectl otelcol >&2 || exit $?
exec tests/cluster/cluster apiserver -- python3 tests/chart/collecting.py "$programs" "$(tests/cluster/cluster program otelcol)"
