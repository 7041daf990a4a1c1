#!/usr/bin/env bash
# nvcc.sh REPORT COMMAND…: runs the compiler and keeps what ptxas says about each kernel in REPORT.
set -euo pipefail
report=$1
shift
if ! "$@" >"$report" 2>&1; then
  cat "$report" >&2
  rm -f "$report"
  exit 1
fi
grep -vE '^ptxas info|^ +[0-9]+ bytes stack frame' "$report" >&2 || true
