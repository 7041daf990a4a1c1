#!/usr/bin/env bash
# The chart and the CustomResourceDefinition on a real API server, with the real kubectl and helm. Exit code 77, with the
# reason, where there is none.
#
#   tests/chart/on_api_server.sh BIN     BIN holds pitcrew and pitcrew-agent
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"

programs=$(realpath "${1:?say where pitcrew and pitcrew-agent are}")
cd "$ROOT"
tests/cluster/cluster build etcd kube-apiserver kubectl helm >&2 || exit $?
export PATH=$CACHE/cluster/helm-$HELM:$PATH
exec tests/cluster/cluster apiserver -- python3 tests/chart/on_api_server.py "$programs"
