#!/usr/bin/env bash
# What the chart renders: against tests/chart/golden, against the types of two Kubernetes versions, and what it refuses.
# Exit code 77, with the reason, where there is no Helm and no Go to build it with.
#
#   tests/chart/render.sh [--update]    --update writes the golden files anew: look at the difference
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"

cd "$ROOT"
chart=charts/pitcrew
golden=tests/chart/golden
tests/cluster/cluster build helm >&2 || exit $?
helm=$CACHE/cluster/helm-$HELM/helm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
checks=0 failures=0
# check NAME COMMAND…
check() {
  checks=$((checks + 1))
  local name=$1
  shift
  "$@" && return
  echo "FAILED $name"
  failures=$((failures + 1))
}
render() { "$helm" template pitcrew "$chart" --namespace pitcrew-system "$@"; }
# refuses TEXT VALUE…: rendering fails, and says so.
refuses() {
  local text=$1
  shift
  if render "$@" >"$work/refused" 2>&1; then
    echo "rendered with $*"
    return 1
  fi
  grep -qF -- "$text" "$work/refused" || { cat "$work/refused" && return 1; }
}

for values in tests/chart/values/*.yaml; do
  name=$(basename "$values" .yaml)
  check "lint $name" "$helm" lint --quiet --strict "$chart" --values "$values"
  render --values "$values" >"$work/$name.yaml"
  render --values "$values" --set crds.install=false >"$work/$name.golden"
  [ "${1:-}" != --update ] || cp "$work/$name.golden" "$golden/$name.yaml"
  check "golden $name (tests/chart/render.sh --update writes it)" diff -u "$golden/$name.yaml" "$work/$name.golden"
done
# Kinds that Kubernetes itself has, by its own libraries; all kinds, by their schemas.
mkdir "$work/types"
for file in "$work"/*.yaml; do
  awk '/^---/ { if (!foreign) printf "%s", text; text = foreign = "" } { text = text $0 "\n" } /^apiVersion: (pitcrew\.dev|monitoring\.coreos\.com)\// { foreign = 1 } END { if (!foreign) printf "%s", text }' \
    "$file" >"$work/types/$(basename "$file")"
done
check "types of two Kubernetes versions" crds/check/check.sh manifests "$work"/types/*.yaml

# Each definition is the generated one, but for labels and the annotation that keeps it.
definition() { awk -v want="  name: $1" 'function out() { if (kind && named) printf "%s", text; text = ""; kind = named = 0 } /^---/ { out(); next } { text = text $0 "\n" } /^kind: CustomResourceDefinition/ { kind = 1 } $0 == want { named = 1 } END { out() }' "$2"; }
plain() { sed '/^#/d' | sed '/^metadata:/,/^spec:/{/^metadata:\|^spec:/!d}' | sed '/^$/d'; }
for file in crds/*.yaml; do
  name=$(sed -n 's/^  name: \(.*\.pitcrew\.dev\)$/\1/p' "$file")
  check "$name is the generated one" diff <(plain <"$file") <(definition "$name" "$work/default.yaml" | plain)
done
check "the definition is kept" grep -qF 'helm.sh/resource-policy: keep' "$work/default.yaml"
check "the definition is not kept where that is said" bash -c "! grep -qF 'helm.sh/resource-policy' '$work/definitions_only.yaml'"

check "no registry" refuses "image.registry is not set. Push Pitcrew's images with"
check "an unknown value" refuses "additional properties 'replica' not allowed" --set image.registry=r --set operator.replica=3
check "an unknown key of the operator's configuration" refuses "additional properties 'loglevel' not allowed" --set image.registry=r --set operator.config.loglevel=info
check "a replica count that is text" refuses "at '/operator/replicas': got string, want integer" --set image.registry=r --set-string operator.replicas=two
check "a digest that is none" refuses "at '/launcher/image/digest'" --set image.registry=r --set launcher.image.digest=latest

check "an unknown value of an optional part" refuses "additional properties 'cidr' not allowed" --set image.registry=r --set networkPolicies.apiServer.cidr=10.0.0.0/8
check "an address that is none" refuses "at '/networkPolicies/apiServer/cidrs/0'" --set image.registry=r --set 'networkPolicies.apiServer.cidrs={everywhere}'
check "a class that preempts" refuses "additional properties 'preemptionPolicy' not allowed" --set image.registry=r --set-json 'priorityClasses=[{"name":"a","value":1,"preemptionPolicy":"PreemptLowerPriority"}]'

check "an unknown key of the agent's configuration" refuses "additional properties 'kernellog' not allowed" --set image.registry=r --set agent.config.kernellog=kmsg
check "a runbook's place that nobody can open" refuses "at '/alerts/runbooks'" --set image.registry=r --set alerts.runbooks=docs/runbooks
check "every object of the values" tests/chart/closed.py

check "README" python3 charts/generate_readme.py --check
check "the chart's version is VERSION" grep -qx "version: $(cat VERSION)" "$chart/Chart.yaml"
check "the images' version is VERSION" grep -qx "appVersion: $(cat VERSION)" "$chart/Chart.yaml"

echo "$checks checks of the chart, $failures failures"
[ $failures -eq 0 ]
