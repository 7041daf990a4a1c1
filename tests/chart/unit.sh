#!/usr/bin/env bash
# helm-unittest: what the chart makes of values, case by case (tests/chart/unit). Exit code 77, with the reason, where it can't
# be built.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"

cd "$ROOT"
tests/cluster/cluster build helm-unittest >&2 || exit $?
exec "$(tests/cluster/cluster program helm-unittest)" --strict --file '../../tests/chart/unit/*_test.yaml' charts/pitcrew
