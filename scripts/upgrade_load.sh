#!/usr/bin/env bash
# Swaps the program under constant load, ten times (or as many as asked for), every third time with a broken one in between, and
# prints what each kind of client met: scripts/upgrade_load.sh [SWAPS]. Loopback only. Takes the release build if there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOMA_TEST_SWAPS=${1:-10}
[ -x target/release/goma ] && export GOMA_TEST_PROGRAM=$PWD/target/release/goma
cargo test --quiet --test it -- --exact --nocapture upgrade::swaps_under_load_lose_no_request_and_refuse_no_connection
