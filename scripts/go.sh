# shellcheck shell=bash
# Sourced after lib.sh by what runs small Go programs of the repository. They are built once for each version of their sources;
# Go is needed for that alone, and comes from where tests/cluster has it. Exits with 77, "not run", where there is none.
go_environment() {
  PYTHONPATH=$ROOT/tests/cluster PYTHONDONTWRITEBYTECODE=1 python3 - <<'PYTHON'
import shlex, sys
from harness import config, gobuild
try:
    environment = gobuild.go_environment()
except config.NotRun as reason:
    print(f"not run: {reason}", file=sys.stderr)
    sys.exit(77)
for name in ("PATH", "GOROOT", "GOMODCACHE", "GOCACHE", "GOTOOLCHAIN", "CGO_ENABLED"):
    if name in environment:
        print(f"export {name}={shlex.quote(environment[name])}")
PYTHON
}

# go_program NAME KEY GO-BUILD-ARGUMENT…: the path of a program built from the module in the current folder.
go_program() {
  local name=$1 key=$2 folder=$CACHE/go-programs sources program environment code=0
  shift 2
  sources=$(cat ./*.go ./*.mod ./*.sum | sha256sum | cut -c 1-16)
  program=$folder/$name-$key-$sources
  if [ ! -x "$program" ]; then
    mkdir -p "$folder" "$CACHE/cluster"
    environment=$(go_environment)
    echo "building $name for $key, once (some minutes)" >&2
    # tests/cluster uses the same caches, and removes them when all of its programs are there: one at a time.
    (
      flock 9
      eval "$environment"
      GOFLAGS="-buildvcs=false -modcacherw" go build -trimpath -ldflags "-s -w" -o "$program.part" "$@" || code=$?
      exit "$code"
    ) 9>"$CACHE/cluster/.lock" >"$folder/$name.log" 2>&1 || code=$?
    if [ $code -ne 0 ]; then
      tail -n 20 "$folder/$name.log" >&2
      if grep -qE 'dial tcp|no such host|connection refused|i/o timeout|proxyconnect' "$folder/$name.log"; then
        echo "not run: Go modules can't be fetched" >&2
        exit 77
      fi
      die "building $name failed"
    fi
    find "$folder" -name "$name-$key-*" ! -name '*.part' -delete
    mv "$program.part" "$program"
  fi
  echo "$program"
}
