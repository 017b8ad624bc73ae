"""kernelcheck --bench: a line of the machine, then a line for every kernel with its time, its rate and its part of the peak."""
import re
import subprocess
import sys

MACHINE = re.compile(r"one core: reads ([\d.]+) GB/s; f32 (\d+) G/s")
ROW = re.compile(r"^(\S+) +(\w+) +(.+?) +(\d+) ns(?: +([\d.]+) GB/s +([\d.]+) %)?"
                 r"(?: +([\d.]+) (GOP/s|Gstate/s)(?: +([\d.]+) %)?)? *$")


def bench(op, table="ref"):
    command = [sys.argv[1], "--bench", "--only", op, "--table", table]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def main():
    lines = bench("rmsnorm")
    machine = MACHINE.match(lines[1])
    assert machine and all(float(x) > 0 for x in machine.groups()), lines
    rows = [ROW.match(line) for line in lines[3:]]
    assert rows and all(rows), lines
    for row in rows:
        assert row[1] == "ref" and row[2] == "rmsnorm" and int(row[4]) > 0 and float(row[5]) > 0 and float(row[6]) > 0, row
    tables = subprocess.run([sys.argv[1], "--list"], check=True, capture_output=True, text=True).stdout.split("\n")
    best = [line.split()[0] for line in tables if " scan" in line][-1]  # the reference is too slow to be timed
    scan = [ROW.match(line) for line in bench("scan", best)[3:]]
    assert scan and all(r and float(r[7]) > 0 and r[8] == "Gstate/s" for r in scan), scan


if __name__ == "__main__":
    main()
