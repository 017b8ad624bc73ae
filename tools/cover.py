#!/usr/bin/env python3
"""Lines of src/ that the tests ran, folder by folder: what "make cover" prints after running them.

usage: cover.py BUILD_FOLDER [--missed PATH]       --missed: the lines of one source that nothing ran
"""
import collections
import json
import os
import subprocess
import sys


def gcov(path, folder):
    out = subprocess.run(["gcov", "--json-format", "--stdout", path], cwd=folder, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in out.stdout.splitlines() if line.startswith("{")]


def line_counts(build):
    """{source below src/: {line: times run}} over every counter file of the build."""
    counts = collections.defaultdict(lambda: collections.defaultdict(int))
    for folder, _, names in os.walk(build):
        for name in names:
            if not name.endswith(".gcda"):
                continue
            for report in gcov(os.path.abspath(os.path.join(folder, name)), build):
                for file in report["files"]:
                    at = file["file"].rfind("/src/")
                    if at >= 0:
                        for line in file["lines"]:
                            counts[file["file"][at + 1 :]][line["line_number"]] += line["count"]
    return counts


def main(argv):
    if len(argv) not in (1, 3):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    counts = line_counts(argv[0])
    if len(argv) == 3:
        print(*sorted(n for n, c in counts[argv[2]].items() if c == 0))
        return 0
    folders = collections.defaultdict(lambda: [0, 0])
    for path, lines in counts.items():
        for key in (os.path.dirname(path), "all of src"):
            folders[key][0] += sum(1 for c in lines.values() if c)
            folders[key][1] += len(lines)
    for folder, (ran, total) in sorted(folders.items()):
        print(f"{folder:<28} {ran:>6} of {total:>6} lines  {100 * ran / max(total, 1):5.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
