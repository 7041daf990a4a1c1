#!/usr/bin/env bash
# Rules of the house that no compiler knows. Prints each breach; exit status 1 where there is one.
set -euo pipefail
shopt -s lastpipe  # so that breach() can set `bad`
cd "$(dirname "$0")/../.."
bad=0
# breach TITLE: reads lines from standard input; any line is a breach.
breach() {
  local lines
  lines=$(cat)
  [ -z "$lines" ] && return
  printf '%s\n%s\n' "$1" "$lines" | sed '2,$s/^/  /'
  bad=1
}
tracked() { git ls-files -co --exclude-standard -- "$@"; }

# Decisions are pure: time and chance are passed in.
tracked 'operator/decide/*.cpp' 'operator/decide/*.hpp' 'launcher/progress/*.cpp' 'launcher/progress/*.hpp' 'lib/kube/watch/*.cpp' |
  grep -v '_test\.' | xargs -r grep -nE 'system_clock|steady_clock|RealClock|random_device|std::thread|sleep_for' |
  breach "real time, chance or threads inside a pure part (pass them in):" || true
# No test sleeps to wait for something.
tracked '*_test.cpp' | xargs -r grep -nE 'sleep_for|usleep\(|[^a-z_.]sleep\(' | breach "a test that sleeps (wait on a condition):" || true
# Dependencies point one way.
tracked 'lib/base/*.?pp' | xargs -r grep -nE '#include "(lib/(nccl|net|kube|api|local)|operator|launcher|trainer|cli)/' | breach "lib/base includes above itself:" || true
tracked 'lib/nccl/*.?pp' | xargs -r grep -nE '#include "(lib/(net|kube|api|local)|operator|launcher|agent|trainer|cli)/' | breach "lib/nccl includes above itself:" || true
tracked 'lib/api/*.?pp' | xargs -r grep -nE '#include "(lib/(net|kube|local)|operator|launcher|trainer|cli)/' | breach "lib/api includes above itself:" || true
tracked 'lib/net/*.?pp' | xargs -r grep -nE '#include "(lib/(kube|api|local)|operator|launcher|trainer|cli)/' | breach "lib/net includes above itself:" || true
tracked 'lib/kube/*.?pp' | xargs -r grep -nE '#include "(lib/(api|local)|operator|launcher|trainer|cli)/' | breach "lib/kube includes above itself:" || true
tracked 'trainer/*.?pp' | xargs -r grep -nE '#include "(lib/(net|kube|api|local)|operator|launcher|cli)/' | breach "the trainer uses lib/base and lib/nccl alone:" || true
tracked 'launcher/*.?pp' | xargs -r grep -nE '#include "(lib/(kube|local)|operator|trainer|cli)/' | breach "the launcher uses lib/base, lib/net and lib/api alone:" || true
# Heavy headers stay in their adapters.
tracked '*.hpp' | xargs -r grep -lE '#include <(boost/|cpprest/|openssl/|spdlog/)' | grep -vE '^lib/net/|_impl\.hpp$|/detail/' |
  breach "a header that pulls in Boost, OpenSSL, cpprest or spdlog:" || true
# Nothing unfinished.
tracked '*.cpp' '*.hpp' '*.sh' 'scripts/*' | grep -v '^tests/house/' | xargs -r grep -nE 'TODO|FIXME|XXX([^X]|$)|DISABLED_' | grep -v XXXXXX | breach "unfinished:" || true
# Every folder with code says what it is for.
tracked '*.cpp' | grep -vE 'testdata|^tests/(bench|fuzz|goldens)' | xargs -rn1 dirname | sort -u | while read -r code; do
  folder=$code
  while [ "$folder" != . ] && [ ! -e "$folder/README.md" ]; do folder=$(dirname "$folder"); done
  [ "$folder" != . ] || echo "$code"
done | breach "folders without a README.md:" || true
# Links between pages lead somewhere.
tracked '*.md' | while read -r page; do
  { grep -oP '\]\((?!https?:|mailto:|#)\K[^)#\s]+' "$page" || true; } | sort -u | while read -r link; do
    [ -e "$(dirname "$page")/$link" ] || echo "$page: $link"
  done
done | breach "links to files that are not there:" || true
# Planted bugs can still be planted.
tracked 'tests/simulation/bugs/*.patch' | while read -r patch; do git apply --check "$patch" 2>/dev/null || echo "$patch"; done |
  breach "patches that don't apply (make them anew for the code as it is):" || true
exit $bad
