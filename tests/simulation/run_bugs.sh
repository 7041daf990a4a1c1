#!/usr/bin/env bash
# Proves that the simulation finds what it is there to find: applies each planted bug of bugs/*.patch in a copy of the tree, builds
# pitcrew-simulation there, and runs seeds until the invariant that the patch names in its line `# breaks: …` is violated.
#
#   tests/simulation/run_bugs.sh [--seeds N] [--jobs N] [NAME…]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
seeds=300
jobs=$(nproc)
names=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --seeds) seeds=$2; shift 2 ;;
    --jobs) jobs=$2; shift 2 ;;
    -h | --help) sed -n '2,5p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) names+=("$1"); shift ;;
  esac
done
if [[ ${#names[@]} -eq 0 ]]; then
  for patch in "$root"/tests/simulation/bugs/*.patch; do names+=("$(basename "$patch" .patch)"); done
fi

copy=$(mktemp -d "${TMPDIR:-/tmp}/pitcrew-bugs.XXXXXX")
trap 'rm -rf "$copy"' EXIT
# What is in the working tree, committed or not, but no build folders: the copy is built as the tree stands.
(cd "$root" && git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do [[ -e $file ]] && printf '%s\0' "$file"; done |
  tar --null -cf - -T -) | tar -xf - -C "$copy"

export CCACHE_BASEDIR=$copy
export CCACHE_NOHASHDIR=1
configure() { cmake -S "$copy" --preset release -B "$copy/build" -DPITCREW_TESTS=ON >"$copy/log" 2>&1; }
build() { cmake --build "$copy/build" -j "$jobs" --target pitcrew-simulation >"$copy/log" 2>&1; }
fail() { tail -n 30 "$copy/log" >&2; echo "$1" >&2; exit 2; }

configure || fail "the copy can't be configured"
build || fail "the tree without any planted bug doesn't build"
started=$SECONDS
if ! "$copy/build/bin/pitcrew-simulation" --seeds 20 --threads "$jobs" >"$copy/log" 2>&1; then
  fail "without any planted bug the simulation fails already"
fi
echo "no bug planted: 20 seeds hold ($((SECONDS - started)) s)"

missed=0
for name in "${names[@]}"; do
  patch=$root/tests/simulation/bugs/$name.patch
  breaks=$(sed -n 's/^# breaks: *//p' "$patch")
  [[ -n $breaks ]] || fail "$name: the patch has no line '# breaks: <invariant>'"
  patch -s -p1 -d "$copy" <"$patch" >"$copy/log" 2>&1 || fail "$name: the patch doesn't apply"
  build || fail "$name: the patched tree doesn't build"
  started=$SECONDS
  "$copy/build/bin/pitcrew-simulation" --seeds "$seeds" --threads "$jobs" --until "$breaks" >"$copy/found" 2>&1 || true
  if grep -q ": $breaks: " "$copy/found"; then
    echo "$name: found in $((SECONDS - started)) s: $(grep -m1 ": $breaks: " "$copy/found")"
  else
    echo "$name: NOT FOUND in $seeds seeds ($((SECONDS - started)) s); it should break $breaks"
    missed=$((missed + 1))
  fi
  patch -s -R -p1 -d "$copy" <"$patch"
done
echo "${#names[@]} planted bugs, $((${#names[@]} - missed)) found"
[[ $missed -eq 0 ]]
