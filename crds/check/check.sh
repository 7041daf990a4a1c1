#!/usr/bin/env bash
# What API servers say about the CustomResourceDefinition, by their own libraries: Kubernetes 1.30 and the one of
# go.mod. Exit code 77, with the reason, where there is no Go to build them with.
#
#   crds/check/check.sh BIN   BIN holds pitcrew-crd
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"

programs=$(realpath "${1:?say where pitcrew-crd is}")
# shellcheck source=scripts/go.sh
source "$ROOT/scripts/go.sh"

cd "$ROOT/crds/check"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mapfile -t examples < <(git -C "$ROOT" ls-files -co --exclude-standard -- 'examples/*.yaml' | xargs -I{} grep -l 'kind: TrainingJob' "$ROOT/{}")
"$programs/pitcrew-crd" cases "$ROOT"/lib/api/testdata/wrong/*.yaml "$ROOT"/crds/generate/testdata/full.yaml "${examples[@]}" >"$work/cases"
code=0
for modules in kubernetes-1.30.mod go.mod; do
  program=$(go_program crd-check "$modules" -modfile="$modules" .)
  "$program" "$ROOT/crds/trainingjob.yaml" "$work/cases" || code=1
done
exit $code
