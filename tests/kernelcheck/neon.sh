#!/bin/sh
# Builds kernelcheck for aarch64, statically, into the folder named first, and runs it under qemu; further arguments go to
# kernelcheck.  CMake's own rules list the sources and flags, so nothing about them is written here twice.
set -eu
if [ $# -lt 1 ]; then
    echo "usage: neon.sh BUILD_FOLDER [kernelcheck options]" >&2
    exit 2
fi
source=$(cd "$(dirname "$0")/../.." && pwd)
build=$1
shift
for tool in aarch64-linux-gnu-gcc qemu-aarch64-static cmake; do
    if ! command -v "$tool" >/dev/null; then
        echo "neon.sh: $tool is missing: install gcc-aarch64-linux-gnu, qemu-user-static and cmake" >&2
        exit 1
    fi
done
cmake -S "$source" -B "$build" -DCMAKE_TOOLCHAIN_FILE="$source/cmake/arm64.cmake" -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$build" --target kernelcheck >/dev/null
exec qemu-aarch64-static "$build/bin/kernelcheck" "$@"
