#!/usr/bin/env bash
# Puts the OpenID provider of the tests (tests/oidc, versions pinned) into target/oidc; does nothing when it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

want=tests/oidc have=target/oidc
mkdir -p "$have"
cp "$want/provider.mjs" "$have/"
if ! cmp -s "$want/package-lock.json" "$have/package-lock.json" || [ ! -e "$have/.installed" ]; then
    rm -rf "$have/.installed" "$have/node_modules"
    cp "$want/package.json" "$want/package-lock.json" "$have/"
    (cd "$have" && npm ci --ignore-scripts --no-audit --no-fund --silent)
    touch "$have/.installed"
fi
