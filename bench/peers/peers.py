#!/usr/bin/env python3
"""Redis, etcd and the bare three-log loop beside us, in one session on one disk.

    redis      one server, one copy, its log flushed before every answer (appendfsync always)
    etcd       three members; its clients talk to the leader
    limit      three logs and TCP, nothing else: writes are answered when two of three have them durable
    evenkeel   three storage processes, two MemDS servers, one router; the table is one partition, which is
               one group with one leader, as the members of etcd are, and as Redis and the limit have one log
    evenkeel-4 the same servers, a table of four partitions, as one on demand begins with: three leaders

Each cell of the table (workload, bytes of a value, connections) is measured for all of them in turn, round
after round, each connection with one request under way; while one is measured the others run idle. Then come
the ratios of the medians: those are what counts, and they mean something only within one session.

The load of all peers comes from bench/examples/peers.rs, ours from `evenkeel bench`: both are one thread with
the same operations, keys and histogram. The CPU time that the generator takes for a request is told, because
it shares the CPUs with the servers; ours takes more, because it makes whole items with checksums.

    cargo build --release
    cargo build --release -p evenkeel-bench --example peers
    bench/peers/peers.py --folder /data --rounds 3 --seconds 5 --history bench/history/peers.jsonl

`--short` is a smoke test: one round of two seconds, few cells.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile

import chart
from common import Etcd, Limit, Ours, Redis
from common import common_arguments, fingerprint, medians, need, pin_generators, say, write_back

WORKLOADS = ["put", "get", "get-eventual", "ycsb-a", "ycsb-b"]
TOLD = [("rate", "ops/s"), ("p50", "p50 us"), ("p99", "p99 us"), ("p99.9", "p99.9 us"),
        ("per_cpu_s", "ops per CPU s"), ("storage_router_per_cpu_s", "storage+router"),
        ("generator_us", "generator us")]

OURS = "evenkeel"

# What we hold ourselves to at 1 KiB: (workload, connections, figure, peer, least, most) of ours / theirs.
TARGETS = [
    ("put", 64, "rate", "etcd", 5.0, None), ("put", 64, "p99", "etcd", None, 0.25),
    ("put", 64, "rate", "redis", 0.7, None), ("put", 64, "p99", "redis", None, 1.3),
    ("put", 64, "rate", "limit", 0.4, None),
    ("put", 1, "p50", "etcd", None, 0.5), ("put", 1, "p50", "limit", None, 1.6),
    ("put", 64, "per_cpu_s", "etcd", 8.0, None), ("put", 64, "per_cpu_s", "redis", 0.5, None),
    ("get", 64, "rate", "etcd", 3.0, None), ("get", 64, "storage_router_per_cpu_s", "redis", 0.5, None),
]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    common_arguments(parser)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--seconds", type=int, default=5, help="how long each time")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--bytes", type=int, nargs="+", default=[1024, 100], help="of a value")
    parser.add_argument("--workloads", nargs="+", default=WORKLOADS, choices=WORKLOADS)
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 4], help="of our tables; targets are "
                        "judged by the first")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--without", nargs="+", default=[], choices=["redis", "etcd", "limit"])
    parser.add_argument("--segment-mib", type=int, default=128, help="of our log, which has 16 segments")
    parser.add_argument("--cache-mib", type=int, default=256, help="of our page cache")
    parser.add_argument("--reserve-mib", type=int, default=640, help="memory that each of our cores takes at start")
    parser.add_argument("--json", metavar="FILE", help="write everything there")
    parser.add_argument("--svg", metavar="FILE", help="draw the ratios there")
    parser.add_argument("--history", metavar="FILE", help="append the ratios there, as one line")
    parser.add_argument("--short", action="store_true", help="a smoke test: does everything work?")
    options = parser.parse_args()
    if options.short:
        options.rounds, options.seconds, options.keys = 1, 2, 2_000
        options.connections, options.bytes, options.workloads = [1, 64], [1024], ["put", "get", "ycsb-a"]
    for program in (options.evenkeel, options.driver):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not there; cargo build --release, and "
                     "cargo build --release -p evenkeel-bench --example peers")
    need(*(["redis-server", "redis-cli"] if "redis" not in options.without else []),
         *(["etcd"] if "etcd" not in options.without else []))
    return options


class Session:
    """All servers, from start to end."""

    def __init__(self, folder, options):
        self.options, self.peers, self.limits = options, {}, {}
        self.started = []
        try:
            for peer in (Redis, Etcd):
                if peer.name not in options.without:
                    self.peers[peer.name] = self.start(peer(folder, options))
            if "limit" not in options.without:
                for item_bytes in options.bytes:
                    self.limits[item_bytes] = self.start(Limit(folder, options, item_bytes))
            cluster = self.start(Ours(folder, options))
            for name, partitions in ours_of(options):
                self.peers[name] = cluster.with_partitions(partitions)
            write_back()
            pin_generators(options)
        except BaseException:
            self.stop()
            raise

    def start(self, server):
        self.started.append(server)
        return server

    def stop(self):
        for server in self.started:
            server.stop()

    def cells(self):
        """Measures; rows by (workload, bytes, connections), then by name."""
        options, rows = self.options, {}
        for item_bytes in options.bytes:
            for name, peer in self.peers.items():
                say(f"{name}: {options.keys} keys of {item_bytes} bytes")
                peer.load(options.keys, item_bytes)
            peers = dict(self.peers)
            if item_bytes in self.limits:
                peers["limit"] = self.limits[item_bytes]
            for _ in range(options.rounds):
                for workload in options.workloads:
                    for connections in options.connections:
                        cell = rows.setdefault((workload, item_bytes, connections), {})
                        for name, peer in peers.items():
                            row = peer.measure(workload, connections, options.seconds, options.keys, item_bytes)
                            cell.setdefault(name, []).append(row)
                            say(f"{workload:12} {item_bytes:5} B {connections:4} connections {name:9}"
                                f"{row['rate']:10,.0f} a second, p50 {row['p50']} us, p99 {row['p99']} us")
        return {cell: {name: medians(each) for name, each in by_name.items()} for cell, by_name in rows.items()}


def ours_of(options):
    """What we are called with each number of partitions."""
    first = options.partitions[0]
    return [(OURS if count == first else f"{OURS}-{count}", count) for count in options.partitions]


def ratios_of(by_name, us=OURS):
    """Ours to each peer's."""
    ours, ratios = by_name[us], {}
    for name, theirs in by_name.items():
        if not name.startswith(OURS):
            theirs = {**theirs, "storage_router_per_cpu_s": theirs["per_cpu_s"]}
            shared = [key for key, _ in TOLD if key in ours and theirs.get(key)]
            ratios[name] = {key: round(ours[key] / theirs[key], 3) for key in shared}
    return ratios


def name_of(cell):
    workload, item_bytes, connections = cell
    return f"{workload} {item_bytes} B x{connections}"


def table(cells, options):
    lines = [f"{'':24}{'':10}" + "".join(f"{title:>16}" for _, title in TOLD)]
    for cell, by_name in cells.items():
        for name, row in by_name.items():
            figures = "".join(f"{row[key]:16,.0f}" if key in row else f"{'-':>16}" for key, _ in TOLD)
            lines.append(f"{name_of(cell):24}{name:10}{figures}")
        for us, _ in ours_of(options):
            for name, row in ratios_of(by_name, us).items():
                figures = "".join(f"{row[key]:15.2f}x" if key in row else f"{'-':>16}" for key, _ in TOLD)
                lines.append(f"{'':14}{us:10} / {name:7}{figures}")
    return "\n".join(lines)


def judged(cells):
    """Each target that this session measured: what it asks for, what came out, and whether that holds."""
    verdicts = []
    for workload, connections, figure, peer, least, most in TARGETS:
        by_name = cells.get((workload, 1024, connections), {})
        ratio = ratios_of(by_name).get(peer, {}).get(figure) if by_name else None
        if ratio is None:
            continue
        holds = (least is None or ratio >= least) and (most is None or ratio <= most)
        bound = f">= {least}" if least is not None else f"<= {most}"
        verdicts.append({"what": f"{workload} 1024 B x{connections} {figure} / {peer}", "bound": bound,
                         "ratio": ratio, "holds": holds})
    return verdicts


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="evenkeel-peers-", dir=options.folder) as folder:
        host = fingerprint(folder)
        session = Session(folder, options)
        try:
            cells = session.cells()
        finally:
            session.stop()
    print(table(cells, options))
    verdicts = judged(cells)
    for verdict in verdicts:
        print(f"{'holds' if verdict['holds'] else 'MISSED':8}{verdict['what']:44}{verdict['bound']:>10}"
              f"{verdict['ratio']:8.2f}")
    ratios = {f"{us}_to": {name_of(cell): ratios_of(by_name, us) for cell, by_name in cells.items()}
              for us, _ in ours_of(options)}
    how = {"rounds": options.rounds, "seconds": options.seconds, "keys": options.keys,
           "partitions": options.partitions, "pin": options.pin}
    if options.json:
        figures = {name_of(cell): by_name for cell, by_name in cells.items()}
        with open(options.json, "w") as out:
            json.dump({"host": host, "run": how, "medians": figures, **ratios, "targets": verdicts}, out,
                      indent=2)
    if options.history:
        with open(options.history, "a") as out:
            out.write(json.dumps({"host": host, "run": how, **ratios}) + "\n")
    if options.svg:
        with open(options.svg, "w") as out:
            out.write(chart.bars(ratios[f"{OURS}_to"], "Requests a second: ours in each peer's", "rate"))


if __name__ == "__main__":
    main()
