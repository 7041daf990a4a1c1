#!/usr/bin/env bash
# kubeconform: what the chart renders, and the examples, against the schemas of two Kubernetes versions, ours and the
# Prometheus operator's. Nothing is skipped: a kind without a schema is a failure. Exit code 77, with the reason, where the
# programs or the schemas can't be had.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"

cd "$ROOT"
tests/cluster/cluster build helm kubeconform >&2 || exit $?
helm=$(tests/cluster/cluster program helm)
kubeconform=$(tests/cluster/cluster program kubeconform)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# schemas VERSION: the folder of a version's schemas, made once.
schemas() {
  local key folder part
  key=$(cat tests/chart/schemas.py <(echo "$PROMETHEUSOPERATOR") | sha256sum | cut -c 1-12)
  folder=$CACHE/kube-schemas/$1-$key
  if [ ! -d "$folder" ]; then
    part=$(mktemp -d "$CACHE/schemas.XXXXXX")
    python3 tests/chart/schemas.py "$1" "$part" >&2 || return
    mkdir -p "$CACHE/kube-schemas"
    rm -rf "$CACHE/kube-schemas/$1"-*
    mv "$part" "$folder"
  fi
  echo "$folder"
}

for values in tests/chart/values/*.yaml; do
  "$helm" template pitcrew charts/pitcrew --namespace pitcrew-system --values "$values" --set crds.install=false >"$work/$(basename "$values")"
done
"$helm" template pitcrew charts/pitcrew --set image.registry=r,dashboards.enabled=true,alerts.enabled=true,crds.install=false >"$work/dashboards.yaml"
mapfile -t examples < <(git ls-files -co --exclude-standard -- 'examples/*.yaml' | xargs grep -l '^kind: ')
python3 tests/chart/schemas.py ours "$work/ours" >&2
places=(-schema-location "$work/ours/{{.ResourceKind}}{{.KindSuffix}}.json")
failures=0
for version in "$KUBERNETESOLDEST" "$KUBERNETES"; do
  folder=$(schemas "$version") || exit $?
  echo "Kubernetes $version"
  "$kubeconform" -strict -summary "${places[@]}" -schema-location "$folder/{{.ResourceKind}}{{.KindSuffix}}.json" "$work"/*.yaml "${examples[@]}" || failures=1
done

# What it is worth: a field that doesn't exist, in an object of each origin, is found.
printf '%s\n' 'apiVersion: apps/v1' 'kind: Deployment' 'metadata: {name: a}' 'spec: {replica: 1, selector: {}, template: {}}' >"$work/wrong"
printf '%s\n' 'apiVersion: pitcrew.dev/v1alpha1' 'kind: TrainingJob' 'metadata: {name: a}' 'spec: {replicsa: 1}' >"$work/wrong2"
printf '%s\n' 'apiVersion: monitoring.coreos.com/v1' 'kind: PodMonitor' 'metadata: {name: a}' 'spec: {selectors: {}}' >"$work/wrong3"
for wrong in "$work"/wrong*; do
  mv "$wrong" "$wrong.yaml"
  if "$kubeconform" -strict "${places[@]}" -schema-location "$folder/{{.ResourceKind}}{{.KindSuffix}}.json" "$wrong.yaml" >"$work/said" || ! grep -q 'additional properties' "$work/said"; then
    echo "FAILED an unknown field passes: $(cat "$wrong.yaml")"
    failures=1
  fi
done
exit $failures
