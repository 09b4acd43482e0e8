#!/usr/bin/env bash
# Builds the release binary for another architecture on Debian: scripts/cross.sh arm64|armv7. Prepared, not part of CI.
#
# Needs the Rust target (rustup target add) and installs the C cross compiler and, for the cryptography's bindings on armv7, clang.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
arm64) target=aarch64-unknown-linux-gnu gcc=aarch64-linux-gnu more=() ;;
armv7) target=armv7-unknown-linux-gnueabihf gcc=arm-linux-gnueabihf more=(clang libclang-dev) ;;
*) echo "usage: $0 arm64|armv7" >&2; exit 2 ;;
esac
need=()
command -v "$gcc-gcc" >/dev/null || need+=("gcc-$gcc" "g++-$gcc")
command -v cmake >/dev/null || need+=(cmake)
[ ${#more[@]} -eq 0 ] || command -v clang >/dev/null || need+=("${more[@]}")
[ ${#need[@]} -eq 0 ] || apt-get install -y -qq --no-install-recommends "${need[@]}"
rustup target list --installed | grep -qx "$target" || rustup target add "$target"

upper=$(echo "$target" | tr 'a-z-' 'A-Z_')
export "CC_${target//-/_}=$gcc-gcc" "CXX_${target//-/_}=$gcc-g++" "AR_${target//-/_}=$gcc-ar"
export "CARGO_TARGET_${upper}_LINKER=$gcc-gcc"
# Kernels for arm64 have pages of 4, 16 or 64 KiB; an allocator built for the largest runs on all of them.
[ "$1" = arm64 ] && export JEMALLOC_SYS_WITH_LG_PAGE=16
cargo build --release --locked --target "$target" --bin goma
"$gcc-strip" -o "target/$target/release/goma.stripped" "target/$target/release/goma"
ls -l "target/$target/release/goma.stripped"
