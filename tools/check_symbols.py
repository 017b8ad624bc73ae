#!/usr/bin/env python3
"""The libraries let out exactly the functions that the public header declares with FM_API.

usage: check_symbols.py [--nm NM] HEADER LIBRARY...        (.so or .a)
"""
import re
import subprocess
import sys


def declared(header):
    """Names of the FM_API functions of a header."""
    with open(header, encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    text = re.sub(r"^\s*#.*$", "", text, flags=re.M)
    return {re.search(r"(\w+)\s*\(", d).group(1) for d in re.findall(r"\bFM_API\b([^;]*);", text)}


def exported(nm, library):
    """Names a library defines for others, without what the tool chain adds to every shared object."""
    dynamic = ["-D"] if ".so" in library else []
    out = subprocess.run([nm, *dynamic, "-g", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    names = {line.split()[-1].split("@")[0] for line in out.splitlines() if len(line.split()) == 3}
    return names - {"_init", "_fini", "_edata", "_end", "__bss_start"}


def main(argv):
    nm = "nm"
    if argv and argv[0] == "--nm":
        nm, argv = argv[1], argv[2:]
    if len(argv) < 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    want, bad = declared(argv[0]), 0
    for library in argv[1:]:
        have = exported(nm, library)
        for name in sorted(want - have):
            print(f"{library}: {name} is declared in {argv[0]} but not exported: is it defined where the header is seen?")
        for name in sorted(have - want):
            print(f"{library}: {name} is exported but not declared in {argv[0]}: make it static or hidden")
        bad += len(want ^ have)
    if not bad:
        print(f"{len(want)} functions, in the header and in {len(argv) - 1} libraries")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
