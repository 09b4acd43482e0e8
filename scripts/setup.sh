#!/usr/bin/env bash
# Installs what building (and, with "test", testing) needs on Debian: only what is missing, as root or through sudo.
set -euo pipefail

need=()
want() { # command, package
    command -v "$1" >/dev/null 2>&1 || need+=("$2")
}

want cc gcc
want cmake cmake
want make make
if [ "${1:-build}" = test ]; then
    want curl curl
    want gpg gnupg
    [ -x /usr/sbin/slapd ] || need+=(slapd)
    want node nodejs
    want redis-server redis-server
    want npm npm
    want openssl openssl
    want systemd-socket-activate systemd
fi
if [ "${1:-build}" = bench ]; then
    want curl curl
    want python3 python3
    want openssl openssl
    want wrk wrk
    want h2load nghttp2-client
    [ -x /usr/sbin/nginx ] || need+=(nginx-light)
    [ -x /usr/sbin/haproxy ] || need+=(haproxy)
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "cargo is missing: install Rust with rustup first (https://rustup.rs)" >&2
    exit 1
fi
[ ${#need[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || { echo "missing: ${need[*]}; install them, or run as root" >&2; exit 1; }
    as_root=(sudo)
fi
echo "installing: ${need[*]}"
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
