#!/usr/bin/env python3
"""Writes down what the pieces of the hot path cost, as ratios to the reference loop of the same run.

    cargo bench -p evenkeel-bench --bench hot
    bench/history.py                          tells the ratios, beside those of the last line that was written
    bench/history.py --append                 appends them to bench/history/hot.jsonl

A bare time says more about the host and its neighbours than about the code; a ratio of two loops that ran
within the same minute can be held against one of last year.
"""

import argparse
import glob
import json
import os
import subprocess

from peers.common import fingerprint

HERE = os.path.dirname(os.path.abspath(__file__))
HISTORY = os.path.join(HERE, "history", "hot.jsonl")
REFERENCE = "reference: one pass over the bytes"


def measured(folder):
    """Median nanoseconds of each loop of the group, by its name."""
    times = {}
    for path in glob.glob(os.path.join(folder, "criterion", "hot", "*", "new", "benchmark.json")):
        with open(path) as name, open(path.replace("benchmark.json", "estimates.json")) as estimates:
            times[json.load(name)["function_id"]] = json.load(estimates)["median"]["point_estimate"]
    if REFERENCE not in times:
        raise SystemExit(f"no run is in {folder}; cargo bench -p evenkeel-bench --bench hot")
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--target", default=os.environ.get("CARGO_TARGET_DIR", "target"), help="cargo's folder")
    parser.add_argument("--append", action="store_true", help="write them down")
    options = parser.parse_args()
    times = measured(options.target)
    ratios = {name: round(time / times[REFERENCE], 2) for name, time in sorted(times.items()) if name != REFERENCE}
    last = {}
    if os.path.exists(HISTORY):
        with open(HISTORY) as lines:
            last = json.loads(lines.readlines()[-1])["to_reference"]
    for name, ratio in ratios.items():
        change = f"{ratio / last[name]:9.2f}x of the last" if last.get(name) else ""
        print(f"{name:70}{ratio:10.2f}{change}")
    if options.append:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE)
        with open(HISTORY, "a") as out:
            line = {"host": fingerprint(HERE), "commit": commit.stdout.strip(), "to_reference": ratios}
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
