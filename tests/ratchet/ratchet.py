#!/usr/bin/env python3
"""ratchet.py - instructions of fixed runs, counted by callgrind and compared with tests/ratchet/counts.json.

usage: ratchet.py PROGRAM COMPILER [--record]

Times are noisy, counts are not: the same program executes the same instructions in the same order, give or take one in a
million.  They are counted from main on, since a program with CUDA does more before it.  The test fails when a run needs 3 % more
than was recorded, and when it needs 3 % less, so that a gain is written down (make ratchet-record) and cannot be lost again
unseen.  callgrind knows no AVX-512, so it is the AVX2 table that is counted.
A count belongs to a compiler and a C library: with others the test is skipped (exit 77) and says with which it was recorded.
"""
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

SOURCE = pathlib.Path(__file__).resolve().parents[2]
COUNTS = pathlib.Path(__file__).with_name("counts.json")
TOLERANCE = 0.03
SKIPPED = 77

MODEL = "tests/data/tales/tales.gguf"
# 64 ids whose values do not matter, 1 .. 64: text would count the tokenizer too.
PROMPT = ",".join(str(i) for i in range(1, 65))
ENGINE = ["-m", MODEL, "-t", "1", "--cpu", "avx2"]
RUNS = {
    "prefill of 64 tokens": ["logits", *ENGINE, "--ids", PROMPT, "-o", "{folder}/logits.npy"],
    "decode of 16 tokens": ["generate", *ENGINE, "--ids", "1", "-n", "16", "--temp", "0", "--ignore-eos", "--json"],
    "tokenize a text": ["tokenize", "-m", MODEL, "-f", "tests/data/bpe/text.txt"],
    "quantize to Q4_0": ["quantize", MODEL, "{folder}/q4_0.gguf", "q4_0", "-t", "1"],
}


def first_line(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]


def tools(compiler):
    """What the counts depend on besides the sources."""
    version = first_line(compiler, "--version").split(" ", 1)[1]  # without the name it was called by: cc, gcc, gcc-12
    return {"compiler": version, "libc": " ".join(platform.libc_ver()), "machine": platform.machine()}


def count(program, arguments):
    """Instructions of one run in an empty environment and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", "--toggle-collect=main", program,
                   *(a.format(folder=folder) for a in arguments)]
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TMPDIR": folder}
        p = subprocess.run(command, cwd=SOURCE, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           check=False)
        found = re.search(r"Collected : (\d+)", p.stderr)
        if p.returncode != 0 or not found:
            sys.exit(f"ratchet: {' '.join(command)} ended with code {p.returncode}:\n{p.stderr}")
        return int(found[1])


def count_all(program):
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return dict(zip(RUNS, pool.map(lambda arguments: count(program, arguments), RUNS.values())))


def record(program, found):
    COUNTS.write_text(json.dumps({**found, "instructions": count_all(program)}, indent=2) + "\n")
    print(f"recorded {COUNTS.relative_to(SOURCE)}: commit it")


def compare(program, recorded):
    """The sentences of what changed too much."""
    for name, now in count_all(program).items():
        before = recorded["instructions"].get(name)
        change = now / before - 1 if before else 0
        print(f"{name:<24} {now:>14,} instructions, {100 * change:+.2f} % of {before:,}" if before else f"{name}: {now:,}, new")
        if not before:
            yield f"{name} was never recorded: make ratchet-record"
        elif change > TOLERANCE:
            yield f"{name} needs {100 * change:.1f} % more instructions than recorded: find out why, or make ratchet-record"
        elif change < -TOLERANCE:
            yield f"{name} needs {-100 * change:.1f} % fewer instructions: write the gain down with make ratchet-record"


def main(program, compiler, *more):
    if not shutil.which("valgrind"):
        print("ratchet: skipped: valgrind is missing; scripts/deps installs it")
        return SKIPPED
    found = tools(compiler)
    if "--record" in more:
        record(program, found)
        return 0
    recorded = json.loads(COUNTS.read_text())
    for key, value in found.items():
        if value != recorded[key]:
            print(f"ratchet: skipped: the counts were recorded with {key} \"{recorded[key]}\", this is \"{value}\"")
            return SKIPPED
    complaints = list(compare(program, recorded))
    for c in complaints:
        print(f"ratchet: {c}")
    return 1 if complaints else 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(os.path.abspath(sys.argv[1]), *sys.argv[2:]))
