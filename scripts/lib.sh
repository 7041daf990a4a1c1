# shellcheck shell=bash
# What the scripts share. Sourced, never run: `source "$(dirname "$0")/lib.sh"` as the second line of a script.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/pitcrew
export CCACHE_DIR=${CCACHE_DIR:-$CACHE/ccache}
# Two clones in two places share what they compile.
export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$ROOT} CCACHE_NOHASHDIR=1 CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-4G}
mkdir -p "$CACHE" "$CCACHE_DIR"
# shellcheck source=scripts/versions
source "$ROOT/scripts/versions"

# say TEXT: a line of progress, with the time since the script began.
SECONDS=0
say() { printf '%02d:%02d  %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

jobs() { nproc; }

# quietly LOG COMMAND…: runs it with its output in a file; shows the file's end where it fails.
quietly() {
  local log=$1
  shift
  mkdir -p "$(dirname "$log")"
  if ! "$@" >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    die "'$*' failed; all of its output is in $log"
  fi
}

# configure PRESET: a configured build folder build/PRESET.
configure() {
  local options=()
  # The quickstart builds without tests in the same folder; the fuzz preset has none.
  [ "$1" = fuzz ] || options=(-DPITCREW_TESTS="${PITCREW_TESTS:-ON}")
  quietly "$ROOT/build/$1/configure.log" cmake -S "$ROOT" --preset "$1" "${options[@]}"
}

# build PRESET [TARGET…]: builds with progress every few seconds.
build() {
  local preset=$1
  shift
  configure "$preset"
  local log=$ROOT/build/$preset/build.log targets=()
  [ $# -gt 0 ] && targets=(--target "$@")
  cmake --build "$ROOT/build/$preset" -j "$(jobs)" "${targets[@]}" >"$log" 2>&1 &
  local pid=$! seen="" last
  while kill -0 "$pid" 2>/dev/null; do
    sleep 2
    last=$(grep -aoE '^\[[0-9]+/[0-9]+\]' "$log" | tail -n 1 || true)
    if [ -n "$last" ] && [ "$last" != "$seen" ] && [ $((SECONDS % 20)) -lt 2 ]; then
      say "  building $preset $last"
      seen=$last
    fi
  done
  if ! wait "$pid"; then
    grep -E 'error|FAILED|undefined reference' -A 5 "$log" | head -n 60 >&2 || true
    die "the build of '$preset' failed; all of its output is in $log"
  fi
}

# setup_once: what scripts/setup installs, unless it is all there.
setup_once() { "$ROOT/scripts/setup" --quiet; }

# setup_wheels WHAT FOLDER REQUIREMENTS [PIP OPTION…]: Python wheels unpacked in a folder, which is made anew where the
# requirements changed.
setup_wheels() {
  local what=$1 folder=$2 requirements=$3
  shift 3
  if cmp -s "$folder/requirements.txt" "$requirements"; then
    ${quiet:-false} || say "$what: in $folder"
    return
  fi
  say "installing $what from Python wheels into $folder"
  rm -rf "$folder"
  mkdir -p "$folder"
  quietly "$CACHE/cuda.log" python3 -m venv "$folder/venv"
  quietly "$CACHE/cuda.log" "$folder/venv/bin/pip" install --quiet --no-cache-dir --require-hashes --no-deps --only-binary :all: \
    "$@" --target "$folder" -r "$requirements"
  rm -rf "$folder/venv"
  cp "$requirements" "$folder/requirements.txt"
}

# cuda_home: prints the toolkit's folder; see cmake/Cuda.cmake.
cuda_home() {
  local folder
  for folder in "${CUDA_HOME:-}" /usr/local/cuda "$CACHE/cuda/$CUDA/nvidia/cu13"; do
    if [ -n "$folder" ] && [ -x "$folder/bin/nvcc" ]; then
      echo "$folder"
      return
    fi
  done
  die "there is no nvcc in CUDA_HOME, /usr/local/cuda or the cache; scripts/setup --cuda installs a toolkit"
}

# torch_environment: prints the folder of a Python environment with torch, made once.
torch_environment() {
  local environment=$CACHE/torch-$TORCH
  if [ ! -x "$environment/bin/python" ]; then
    say "installing torch $TORCH from PyPI into $environment" >&2
    quietly "$CACHE/torch.log" python3 -m venv "$environment"
    quietly "$CACHE/torch.log" "$environment/bin/pip" install --quiet --require-hashes --no-deps -r "$ROOT/tests/goldens/requirements.txt"
  fi
  echo "$environment"
}

# transformers_environment: the same with transformers, which sees the other's torch.
transformers_environment() {
  local torch environment=$CACHE/transformers-$TRANSFORMERS packages
  torch=$(torch_environment)
  if [ ! -e "$environment/made" ]; then
    say "installing transformers $TRANSFORMERS from PyPI into $environment" >&2
    quietly "$CACHE/transformers.log" python3 -m venv "$environment"
    quietly "$CACHE/transformers.log" "$environment/bin/pip" install --quiet --require-hashes --no-deps -r "$ROOT/tests/examples/requirements.txt"
    packages=$(echo "$torch"/lib/python3*/site-packages)
    echo "$packages" >"$(echo "$environment"/lib/python3*/site-packages)/torch.pth"
    touch "$environment/made"
  fi
  echo "$environment"
}
