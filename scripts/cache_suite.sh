#!/usr/bin/env bash
# Puts the conformance suite for HTTP caches (tests/cache, versions pinned) into target/cache-suite; does nothing when it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

want=tests/cache have=target/cache-suite
mkdir -p "$have"
cp "$want/run.mjs" "$have/"
if ! cmp -s "$want/package-lock.json" "$have/package-lock.json" || [ ! -e "$have/.installed" ]; then
    rm -rf "$have/.installed" "$have/node_modules"
    cp -r "$want/none" "$want/package.json" "$want/package-lock.json" "$have/"
    (cd "$have" && npm ci --ignore-scripts --no-audit --no-fund --silent)
    touch "$have/.installed"
fi
