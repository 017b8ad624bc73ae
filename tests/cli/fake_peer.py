"""Stands in for llama-bench and llama-batched-bench: prints what they print, or fails in the way FAKE_PEER says."""
import json
import os
import sys
import time


def value(option):
    return int(sys.argv[sys.argv.index(option) + 1])


def parent_ticks():
    """CPU time of whoever runs this, in clock ticks."""
    with open(f"/proc/{os.getppid()}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def rate():
    """Recorded arguments, and a rate that says which run this is: 10, 20, 30 ..."""
    path = os.environ["FAKE_PEER_LOG"]
    with open(path, "a") as f:
        f.write(json.dumps(sys.argv[1:]) + "\n")
    with open(path) as f:
        return 10.0 * len(f.readlines())


def main():
    how = os.environ.get("FAKE_PEER", "")
    print("loading the model ...", file=sys.stderr)
    speed = rate()
    if how == "fail":
        print("cannot load the model", file=sys.stderr)
        sys.exit(3)
    if how == "hang":
        time.sleep(600)
    if how == "garbage":
        print("| model | t/s |")
    elif how == "other":
        print(json.dumps([{"n_prompt": 512, "n_gen": 0, "avg_ts": 1.0}]))
    elif how == "silent":
        pass
    elif how == "idle":
        before = parent_ticks()
        time.sleep(0.5)
        print(json.dumps([{"n_prompt": value("-p"), "n_gen": 0, "avg_ts": 1000.0 + parent_ticks() - before}]))
    elif "-npl" in sys.argv:
        print("main: a line of talk")
        sizes = {"pp": value("-npp"), "tg": value("-ntg"), "pl": value("-npl")}
        print(json.dumps({**sizes, "speed_pp": speed, "speed_tg": 2 * speed}))
    else:
        print(json.dumps([{"build": "x", "n_prompt": value("-p"), "n_gen": value("-n"), "avg_ts": speed, "samples_ts": [speed]}]))


if __name__ == "__main__":
    main()
