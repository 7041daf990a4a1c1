#!/usr/bin/env bash
# What API servers say, by their own libraries: those of Kubernetes 1.30 and of the one in go.mod. Exit code 77, with the
# reason, where there is no Go to build them with.
#
#   crds/check/check.sh crd BIN            the CustomResourceDefinitions; BIN holds pitcrew-crd
#   crds/check/check.sh manifests FILE…    manifests that the chart has rendered
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"
# shellcheck source=scripts/go.sh
source "$ROOT/scripts/go.sh"

what=${1:?say what to check: crd or manifests}
shift
arguments=()
for argument in "$@"; do arguments+=("$(realpath "$argument")"); done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ "$what" = crd ]; then
  manifests=("$ROOT"/lib/api/testdata/wrong/*.yaml "$ROOT"/crds/generate/testdata/full.yaml)
  while read -r example; do manifests+=("$ROOT/$example"); done < <(cd "$ROOT" && git ls-files -co --exclude-standard -- 'examples/*.yaml' | xargs grep -l 'kind: TrainingJob')
  read -ra kinds < <("${arguments[0]}/pitcrew-crd" crds | xargs)
  for kind in "${kinds[@]}"; do
    files=()
    [ "$kind" != trainingjob ] || files=("${manifests[@]}")
    "${arguments[0]}/pitcrew-crd" cases "$kind" "${files[@]}" >"$work/$kind"
  done
fi

cd "$ROOT/crds/check"
code=0
for modules in kubernetes-1.30.mod go.mod; do
  program=$(go_program crd-check "$modules" -modfile="$modules" .)
  if [ "$what" = crd ]; then
    for kind in "${kinds[@]}"; do "$program" crd "$ROOT/crds/$kind.yaml" "$work/$kind" || code=1; done
  else
    "$program" "$what" "${arguments[@]}" || code=1
  fi
done
exit $code
