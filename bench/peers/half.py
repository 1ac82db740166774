#!/usr/bin/env python3
"""Tails at half of saturation: an open loop on us and on the bare three-log loop, slice by slice.

First it is found how many writes a second we take from a closed loop of 64. Then both get half of that from
an open loop, in turns: a slice of ours, a slice of the loop, and so on, until ours add up to the time that
was asked for. Latency counts from when a request was due. The slices' distributions are added up, so a bad
second counts once for each request that it made wait. What the host does to everybody and nobody sees is in
the loop's tail, too.

    cargo build --release
    cargo build --release -p evenkeel-bench --example peers
    bench/peers/half.py --folder /data --minutes 5

The loop has no tree, so it writes no checkpoint; ours does, all the time. A slice of ours that falls behind
by more than 1% is INVALID and done again, and so is a slice of either that is NOISY: a CPU, or the disk,
stood still for more than 0.05% of it. What those slices had is told as well. The end says how p99.9 stands to
p50 and to the loop's p99.9, and how much of the time of the slowest 1% of the last minute `evenkeel tail`
explains.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

from common import Limit, Ours, common_arguments, fingerprint, pin_generators, say, write_back

CONNECTIONS = 64
# p99.9 is at most so many times p50, or so many times the loop's p99.9.
OF_P50, OF_LIMIT = 5.0, 1.5
# A slice whose p99.9 is so many times its p50 has seen a stall: what was it?
STALL_OF_P50 = 10.0
# Of the time of the slowest requests, so much has a name at least.
EXPLAINED = 0.95
# Slices that are done again, for each one that counts: a host that needs more measures itself.
AGAIN_MAX = 3
# Exit code of `evenkeel bench` when less was done than was offered.
INVALID = 4


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    common_arguments(parser)
    parser.add_argument("--minutes", type=float, default=5, help="how long ours is measured, all together")
    parser.add_argument("--slice", type=int, default=15, help="seconds of a slice of ours")
    parser.add_argument("--limit-slice", type=int, default=5, help="seconds of a slice of the loop")
    parser.add_argument("--rate", type=int, help="offer so many a second, instead of half of saturation")
    parser.add_argument("--tick-us", type=int, default=100,
                        help="both generators begin what is due within so many microseconds together")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--item-bytes", type=int, default=1024)
    parser.add_argument("--segment-mib", type=int, default=128, help="of our logs")
    parser.add_argument("--cache-mib", type=int, default=256, help="of each of our cores")
    parser.add_argument("--reserve-mib", type=int, default=640, help="memory that each of our cores takes at start")
    parser.add_argument("--history", help="append the result to this file, a line of JSON")
    options = parser.parse_args()
    options.evenkeel, options.driver = map(os.path.abspath, (options.evenkeel, options.driver))
    return options


class Distribution:
    """Latencies of several slices, from their `.hgrm` tables: (microseconds, how many were at most that)."""

    def __init__(self):
        self.steps, self.count = [], 0

    def add(self, path):
        before = 0
        with open(path) as table:
            rows = [line.split() for line in table if line.strip() and line.lstrip()[0].isdigit()]
        for value, _, total, *_ in rows:
            self.steps.append((float(value) * 1000, int(total) - before))
            before = int(total)
        self.count += before

    def percentile(self, percent):
        """The least latency that so many of a hundred did not exceed."""
        seen, wanted = 0, self.count * percent / 100
        for value, count in sorted(self.steps):
            seen += count
            if seen >= wanted:
                return value
        return float("nan")


def load(ours, options, pace, seconds, report=None):
    """The report of a load on a table of one partition, or nothing if it was INVALID."""
    words = [ours.binary, "bench", "--endpoint", ours.endpoint, "--cluster", ours.folder]
    words += ["--table", "half", "--partitions", "1", "--workload", "put", *pace]
    words += ["--connections", str(CONNECTIONS), "--for", f"{seconds}s", "--warm-up", "1s"]
    words += ["--keys", str(options.keys), "--item-bytes", str(options.item_bytes)]
    words += ["--no-noise-check", "--json"] + (["--report", report] if report else [])
    ran = subprocess.run(words, capture_output=True, text=True)
    if ran.returncode == INVALID:
        return None
    if ran.returncode != 0:
        sys.exit(f"{' '.join(words)}: {ran.stderr}")
    return json.loads(ran.stdout)


def tail_of(ours):
    """What `tail` says of the last minute."""
    return json.loads(ours.command("tail", "--endpoint", ours.endpoint, "--table", "half"))


def why(tail):
    """Of it, in words: p99.9, and where the slowest request was."""
    says = [band["says"] for band in tail["percentiles"] if band["percentile"] == 99.9]
    slowest = tail["slowest"][:1]
    stages = [sorted(request["stages_ns"].items(), key=lambda stage: -stage[1])[:4] for request in slowest]
    spent = [f"{name} {ns / 1e6:.1f} ms" for stage in stages for name, ns in stage]
    return "; ".join([*says, f"the slowest: {', '.join(spent)}"])


def measure(folder, options):
    limit = Limit(folder, options, options.item_bytes)
    try:
        ours = Ours(folder, options)
        try:
            write_back()
            pin_generators(options)
            return interleave(folder, options, ours, limit)
        finally:
            ours.stop()
    finally:
        limit.stop()


class Slices:
    """What slices measured, apart from those that the host spoiled."""

    def __init__(self, name):
        self.name, self.quiet, self.all, self.noisy = name, Distribution(), Distribution(), 0

    def add(self, report, table):
        """Whether the slice counts."""
        self.all.add(table)
        if report["noisy"]:
            self.noisy += 1
            say(f"    NOISY, done again: {self.name} p99.9 {report['latencies_us']['p99.9']} us; "
                f"{stops(report['stops'])}")
        else:
            self.quiet.add(table)
        return not report["noisy"]


def stops(seen):
    """How long the host stood still, in words."""
    parts = [f"{what} {seen[what]['us'] / 1000:.1f} ms, {seen[what]['us_max'] / 1000:.1f} ms at once"
             for what in ("cpu", "disk") if seen[what]]
    return "stood still: " + ", ".join(parts)


def interleave(folder, options, ours, limit):
    # The first fills the table.
    saturation = [load(ours, options, ["--closed", str(CONNECTIONS)], 5)["rate"] for _ in range(3)][-1]
    rate = options.rate or round(saturation / 2)
    say(f"saturation {saturation:,.0f} writes a second; {rate:,} are offered")
    pace = ["--rate", str(rate), "--arrivals", "poisson", "--tick", f"{options.tick_us}us"]
    slices = max(1, round(options.minutes * 60 / options.slice))
    us, loop, invalid, cpu = Slices("ours"), Slices("the loop"), 0, []

    def again():
        if invalid + us.noisy + loop.noisy > AGAIN_MAX * slices:
            sys.exit("too many slices were INVALID or NOISY: this host is too busy")

    while len(cpu) < slices:
        again()
        report = os.path.join(folder, f"slice-{len(cpu)}-{invalid}-{us.noisy}")
        done = load(ours, options, pace, options.slice, report)
        if done is None:
            invalid += 1
            say("a slice fell behind: INVALID, and done again")
            continue
        of_ours = done["latencies_us"]
        counts = us.add(done, os.path.join(report, "latency.hgrm"))
        if of_ours["p99.9"] > STALL_OF_P50 * of_ours["p50"]:
            say(f"    {why(tail_of(ours))}")
        if not counts:
            continue
        cpu.append(1e6 / done["servers"]["all"]["requests_per_cpu_second"])
        table = os.path.join(folder, "loop.hgrm")
        while True:
            # The loop keeps no keys, so there is nothing to load.
            theirs = limit.drive("put", CONNECTIONS, options.limit_slice, options.keys, options.item_bytes,
                                 more=["--rate", rate, "--tick-us", options.tick_us, "--table", table,
                                       "--folder", folder])
            if loop.add(theirs, table):
                break
            again()
        of_loop = theirs["latencies_us"]
        say(f"{len(cpu):3} of {slices}: ours p50 {of_ours['p50']} us, p99.9 {of_ours['p99.9']} us; "
            f"the loop p50 {of_loop['p50']} us, p99.9 {of_loop['p99.9']} us")
    figures = {name: {f"p{at}": each.percentile(at) for at in (50, 90, 99, 99.9, 99.99)}
               for name, each in (("evenkeel", us.quiet), ("limit", loop.quiet),
                                  ("evenkeel, noisy too", us.all), ("limit, noisy too", loop.all))}
    tail = tail_of(ours)
    return {"rate": rate, "saturation": saturation, "writes": us.quiet.count, "invalid": invalid,
            "noisy": {"evenkeel": us.noisy, "limit": loop.noisy}, "explained": tail["explained"],
            "pin": options.pin, "tick_us": options.tick_us, "cpu_us": sum(cpu) / len(cpu), "us": figures}


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="evenkeel-half-", dir=options.folder) as folder:
        host = fingerprint(folder)
        result = measure(folder, options)
    us, loop = result["us"]["evenkeel"], result["us"]["limit"]
    of_p50, of_limit = us["p99.9"] / us["p50"], us["p99.9"] / loop["p99.9"]
    result.update({"p99.9 to p50": round(of_p50, 2), "p99.9 to the loop's": round(of_limit, 2),
                   "the loop's p99.9 to its p50": round(loop["p99.9"] / loop["p50"], 2)})
    for name, row in result["us"].items():
        print(f"{name:20}" + "".join(f"{at:>10}{value:10,.0f} us" for at, value in row.items()))
    print(f"{result['writes']:,} writes at {result['rate']:,} a second, {result['cpu_us']:.0f} us of CPU time "
          f"each; {result['invalid']} slices INVALID, {result['noisy']['evenkeel']} of ours and "
          f"{result['noisy']['limit']} of the loop NOISY")
    holds = of_p50 <= OF_P50 or of_limit <= OF_LIMIT
    print(f"{'holds' if holds else 'MISSED':8}p99.9 is {of_p50:.2f}x p50 (at most {OF_P50}), or "
          f"{of_limit:.2f}x the loop's p99.9 (at most {OF_LIMIT})")
    named = result["explained"]
    print(f"{'holds' if named >= EXPLAINED else 'MISSED':8}{named:.1%} of the time of the slowest 1% is explained "
          f"(at least {EXPLAINED:.0%})")
    if options.history:
        with open(options.history, "a") as out:
            out.write(json.dumps({"host": host, **result}) + "\n")


if __name__ == "__main__":
    main()
