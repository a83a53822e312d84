#!/bin/sh
# Builds the C++ test driver in all its kinds and runs it: every processor path that this machine has
# at full speed with guard pages, its worst and its best one under the sanitizers too. Says each
# result in a line; shows the output of those that fail, and fails with them.
set -u
here=$(dirname "$0")
jobs=$(getconf _NPROCESSORS_ONLN)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0

try() {  # ISA KIND WHAT FLAGS
  start=$(date +%s)
  if make -s -C "$here" -j "$jobs" driver ISA="$1" KIND="$2" >"$log" 2>&1; then
    built=$(date +%s)
    if make -s -C "$here" run ISA="$1" KIND="$2" FLAGS="$4" >"$log" 2>&1; then result=ok; else result=FAIL; fi
    echo "$result  $1, $3: built in $((built - start)) s, ran for $(($(date +%s) - built)) s"
  else
    result=FAIL
    echo "FAIL  $1, $3: it cannot be built"
  fi
  if [ "$result" = FAIL ]; then
    cat "$log"
    failed=1
  fi
}

try portable plain "guard pages" ""
paths=$(make -s -C "$here" run FLAGS=--paths) || exit 1
for path in $paths; do
  best=$path
  [ "$path" = portable ] || try "$path" plain "guard pages" ""
done
# The portable path differs from the best one in its vectors alone, so a part of the tests will do.
for path in $(printf '%s\n' "$best" portable | awk '!seen[$0]++'); do
  flags=
  [ "$path" = "$best" ] || flags=--quick
  try "$path" address "address and undefined behaviour, leaks" "$flags"
  try "$path" thread "threads" "$flags"
done
exit $failed
