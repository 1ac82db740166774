#!/usr/bin/env python3
"""Durable writes of one core, beside Redis that flushes its log before it answers.

Starts both in one folder, so on one disk, and puts the same load on them in turn: A, B, A, B. Each of 64
connections has one SET, or one put, of 1 KiB under way, on keys chosen at random. While one is measured the
other runs idle. Figures of two runs are not comparable; the ratios of one run are. Ends only what it started.

Redis comes from the distribution: apt-get install redis-server. On Debian, that also starts a server of its
own, which is none of ours: systemctl disable --now redis-server.
"""

import argparse
import csv
import json
import subprocess
import tempfile

from common import Evenkeel, cpu_seconds, medians, need, redis_server, say


class Redis:
    """Redis, and the load that its own generator puts on it."""

    name = "redis"

    def __init__(self, folder, options):
        self.options = options
        self.server, self.port = redis_server(folder)

    def measure(self):
        options = self.options
        common = ["redis-benchmark", "-p", str(self.port), "-c", str(options.connections)]
        common += ["-d", str(options.item_bytes), "-r", str(options.keys), "-t", "set", "--csv"]
        # How many requests fill the time is found out first; that warms up as well.
        rate = self.run(common, options.connections * 200)["rps"]
        before = cpu_seconds(self.server.pid)
        requests = max(int(rate * options.seconds), options.connections)
        row = self.run(common, requests)
        cpu = cpu_seconds(self.server.pid) - before
        return {
            "rate": row["rps"], "p50_us": 1000 * row["p50_latency_ms"], "p99_us": 1000 * row["p99_latency_ms"],
            "requests_per_cpu_second": {"storage": requests / cpu},
        }

    @staticmethod
    def run(common, requests):
        ran = subprocess.run(common + ["-n", str(requests)], capture_output=True, text=True, check=True)
        row = list(csv.DictReader(ran.stdout.splitlines()))[-1]
        return {name: float(value) for name, value in row.items() if name != "test"}

    def stop(self):
        self.server.stop()


class OneNode(Evenkeel):
    """One storage node of one core, replication off, with a router and two MemDS servers before it."""

    name = "evenkeel"

    def __init__(self, folder, options):
        self.options = options
        up = ["--nodes", "1", "--port", "0"]
        up += ["--segment-mib", str(options.segment_mib), "--cache-mib", str(options.cache_mib)]
        super().__init__(folder, options.evenkeel, up)

    def measure(self):
        options = self.options
        report = self.bench("put", options.connections, options.seconds, options.keys, options.item_bytes)
        latencies, servers = report["latencies_us"], report["servers"]
        per_cpu = {role: servers[role]["requests_per_cpu_second"] for role in ("storage", "storage+router")}
        return {
            "rate": report["rate"], "p50_us": latencies["p50"], "p99_us": latencies["p99"],
            "requests_per_cpu_second": per_cpu,
        }


def flat(measured):
    """One row: figures without nesting, to take medians and ratios of."""
    row = {key: measured[key] for key in ("rate", "p50_us", "p99_us")}
    per_cpu = measured["requests_per_cpu_second"]
    row["per CPU s, storage"] = per_cpu["storage"]
    row["per CPU s, with router"] = per_cpu.get("storage+router", per_cpu["storage"])
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", default=".", help="where the data goes, in a new folder that is removed")
    parser.add_argument("--evenkeel", default="target/release/evenkeel", help="the command")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is measured")
    parser.add_argument("--seconds", type=int, default=10, help="how long each time")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--item-bytes", type=int, default=1024)
    parser.add_argument("--segment-mib", type=int, default=128, help="of our log, which has 16 segments")
    parser.add_argument("--cache-mib", type=int, default=256, help="of our page cache")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    need("redis-server", "redis-benchmark", "redis-cli")
    with tempfile.TemporaryDirectory(prefix="evenkeel-peers-", dir=options.folder) as folder:
        measure(folder, options)


def measure(folder, options):
    peers, rows = [], {}
    try:
        for peer in (Redis, OneNode):
            peers.append(peer(folder, options))
        for number in range(options.rounds):
            for peer in peers:
                row = flat(peer.measure())
                rows.setdefault(peer.name, []).append(row)
                say(f"round {number + 1}, {peer.name}: {row['rate']:.0f} a second, p99 {row['p99_us']:.0f} us")
    finally:
        for peer in peers:
            peer.stop()
    ours, theirs = medians(rows["evenkeel"]), medians(rows["redis"])
    ratios = {key: ours[key] / theirs[key] for key in ours}
    if options.json:
        return print(json.dumps({"runs": rows, "medians": {"evenkeel": ours, "redis": theirs},
                                 "evenkeel_to_redis": ratios}, indent=2))
    print(f"{'':24}{'redis':>12}{'evenkeel':>12}{'ratio':>9}")
    for key in ours:
        print(f"{key:24}{theirs[key]:12,.0f}{ours[key]:12,.0f}{ratios[key]:8.2f}x")


if __name__ == "__main__":
    main()
