# shellcheck shell=bash
# Sourced after lib.sh by what builds Go programs. Exits with 77, "not run", where there is no Go that is new enough.
# Modules and built packages are shared with tests/cluster.
export GOMODCACHE=$CACHE/go/mod GOCACHE=$CACHE/go/build GOFLAGS="-buildvcs=false -modcacherw" GOTOOLCHAIN=local CGO_ENABLED=0

GO_PROGRAM=$(PATH=$PATH:/usr/local/go/bin:/usr/lib/go/bin command -v go || true)
go_version=$([ -z "$GO_PROGRAM" ] || "$GO_PROGRAM" env GOVERSION)
if [ -z "$go_version" ] || [ "$(printf '%s\n' "go1.26" "$go_version" | sort -V | head -n 1)" != go1.26 ]; then
  # An older Go has fetched the one that is needed for tests/cluster, as a module.
  GO_PROGRAM=$(find "$GOMODCACHE/golang.org" -maxdepth 3 -path "*toolchain*go$GO.*/bin/go" -perm -u+x 2>/dev/null | head -n 1 || true)
  if [ -z "$GO_PROGRAM" ]; then
    echo "not run: needs Go 1.26 or newer, there is ${go_version:-none}; put one on PATH, or run tests/cluster/cluster build, which fetches it"
    exit 77
  fi
fi

# go_program NAME KEY GO-BUILD-ARGUMENT…: the path of a program built from the module in the current folder.
go_program() {
  local name=$1 program=$CACHE/go/bin/$1-$2 log
  shift 2
  mkdir -p "$CACHE/go/bin"
  log=$CACHE/go/bin/$name.log
  if ! "$GO_PROGRAM" build -trimpath -ldflags "-s -w" -o "$program" "$@" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    if grep -qE 'dial tcp|no such host|connection refused|i/o timeout|proxyconnect' "$log"; then
      echo "not run: Go modules can't be fetched" >&2
      exit 77
    fi
    die "building $name failed"
  fi
  echo "$program"
}
