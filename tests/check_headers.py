#!/usr/bin/env python3
"""Every header compiles alone, so that the order of includes never matters; the public one is also good C++.

usage: check_headers.py C_COMPILER SOURCE_ROOT
"""
import os
import shutil
import subprocess
import sys

C_FLAGS = "-std=gnu11 -Wall -Wextra -Werror -fsyntax-only -x c".split()
CXX_FLAGS = "-std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++".split()
MACHINE_SPECIFIC = "src/kernels/simd/"  # these need the flags of their instruction set


def headers(root):
    for top in ("include", "src"):
        for folder, _, names in os.walk(os.path.join(root, top)):
            for name in sorted(names):
                path = os.path.join(folder, name)
                if name.endswith(".h") and not os.path.relpath(path, root).startswith(MACHINE_SPECIFIC):
                    yield path


def compiles(command, root, path):
    include = ["-I" + os.path.join(root, d) for d in ("include", "src")]
    done = subprocess.run([*command, *include, "-"], input=f'#include "{path}"\n', text=True, capture_output=True)
    if done.returncode:
        print(f"{os.path.relpath(path, root)} does not compile alone:\n{done.stderr}")
    return done.returncode == 0


def main(argv):
    if len(argv) != 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    compiler, root = argv
    paths = list(headers(root))
    good = [compiles([compiler, *C_FLAGS], root, p) for p in paths]
    if shutil.which("g++"):
        good.append(compiles(["g++", *CXX_FLAGS], root, os.path.join(root, "include", "fmamba.h")))
    print(f"{len(paths)} headers")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
