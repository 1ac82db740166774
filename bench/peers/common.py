"""What the comparisons share: starting and ending servers, putting load on them, and adding figures up.

Only what was started here is ended. Every server listens on loopback, and has its data in a folder that goes
when the comparison ends.
"""

import datetime
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def say(text):
    print(text, file=sys.stderr, flush=True)


def need(*programs):
    """Every program is installed, or the user is told how to install it."""
    packages = {"redis-server": "redis-server", "redis-benchmark": "redis-tools", "redis-cli": "redis-tools",
                "etcd": "etcd-server"}
    missing = sorted({packages[program] for program in programs if shutil.which(program) is None})
    if missing:
        sys.exit(f"a peer is not installed; on Debian: apt-get install {' '.join(missing)}")


def cpu_seconds(pid):
    """CPU time of a process so far, user and system, with that of its children which have ended: Redis
    rewrites its log in a child, as a core of ours writes its checkpoints itself."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:15]) / TICKS_PER_SECOND


def common_arguments(parser):
    """What all comparisons with the bare loop are told."""
    here = os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release")
    parser.add_argument("--folder", default=".", help="where the data goes, in a new folder that is removed")
    parser.add_argument("--evenkeel", default=os.path.join(here, "evenkeel"), help="the command")
    parser.add_argument("--driver", default=os.path.join(here, "examples", "peers"), help="the peers' load")
    parser.add_argument("--pin", type=int, metavar="CPU", default=min(os.sched_getaffinity(0)),
                        help="where all load generators run; -1: anywhere")


def write_back():
    """Whatever was written before, by a build or a copy, reaches the disk now: half a minute later it would
    be in the way of logs. And what the host remembers of files is forgotten, where that is allowed: a host
    that looks for pages to reclaim keeps a CPU for milliseconds while there are any."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as drop:
            drop.write("3")
    except OSError as error:
        say(f"the host's cache of files stays: {error}")


def pin_generators(options):
    """From here on whatever is started runs on one CPU: the load, whichever system it is for. Call it when
    all servers have been started, which run where they would without it."""
    usable = os.sched_getaffinity(0)
    if options.pin >= 0 and options.pin not in usable:
        sys.exit(f"--pin {options.pin}: the CPUs that may be used here are {sorted(usable)}")
    if options.pin >= 0:
        os.sched_setaffinity(0, {options.pin})


def free_ports(count):
    """Ports that nobody listens on now."""
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


class Server:
    """A process that was started here."""

    def __init__(self, folder, name, command, environment=None):
        self.name = name
        self.log = open(os.path.join(folder, f"{name}.log"), "w")
        environment = {**os.environ, **(environment or {})}
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=environment)
        self.pid = self.process.pid

    def wait_for(self, port, seconds=30):
        """Waits until something listens there."""
        for _ in range(seconds * 20):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except OSError:
                self.check()
                time.sleep(0.05)
        self.fail("does not answer")

    def check(self):
        if self.process.poll() is not None:
            self.fail("has ended")

    def fail(self, what):
        with open(self.log.name) as log:
            sys.exit(f"{self.name} {what}; it says: {log.read()[-2000:]}")

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def redis_server(folder):
    """Redis with an append-only file that is flushed before every answer, and nothing else."""
    (port,) = free_ports(1)
    settings = {"port": port, "bind": "127.0.0.1", "dir": folder, "appendonly": "yes",
                "appendfsync": "always", "save": ""}
    command = ["redis-server"]
    for key, value in settings.items():
        command += [f"--{key}", str(value)]
    server = Server(folder, "redis", command)
    server.wait_for(port)
    asked = subprocess.run(["redis-cli", "-p", str(port), "config", "get", "append*"],
                           capture_output=True, text=True)
    words = asked.stdout.split()
    assert dict(zip(words[::2], words[1::2]))["appendfsync"] == "always", "Redis is set otherwise"
    return server, port


class Evenkeel:
    """A cluster of ours, in processes of its own."""

    def __init__(self, folder, binary, words):
        self.binary = binary
        self.folder = os.path.join(folder, "cluster")
        self.endpoint = json.loads(self.command("cluster", "up", "--dir", self.folder, *words))["endpoint"]

    def command(self, *words):
        ran = subprocess.run([self.binary, *words, "--json"], capture_output=True, text=True)
        if ran.returncode != 0:
            sys.exit(f"evenkeel {' '.join(words)}: {ran.stderr}")
        return ran.stdout

    def bench(self, workload, connections, seconds, keys, item_bytes, more=()):
        count = str(connections)
        words = ["bench", "--endpoint", self.endpoint, "--cluster", self.folder, "--workload", workload]
        words += ["--closed", count, "--connections", count, "--for", f"{seconds}s"]
        words += ["--keys", str(keys), "--item-bytes", str(item_bytes), *more]
        report = json.loads(self.command(*words))
        if report["errors"]:
            sys.exit(f"requests failed: {report['errors']}")
        return report

    def stop(self):
        self.command("cluster", "down", "--dir", self.folder)


class Driven:
    """A peer that the driver of bench/examples/peers.rs puts load on."""

    def __init__(self, driver, protocol, addresses, servers):
        self.driver = driver
        self.protocol = protocol
        self.addresses = addresses
        self.servers = servers

    def drive(self, workload, connections, seconds, keys, item_bytes, warm_up=1, more=()):
        words = [self.driver, "drive", "--protocol", self.protocol, "--address", ",".join(self.addresses)]
        words += ["--workload", workload, "--connections", connections, "--keys", keys, "--seed", 1]
        words += ["--item-bytes", item_bytes, "--seconds", seconds, "--warm-up", warm_up]
        words += ["--pids", ",".join(str(server.pid) for server in self.servers), *more]
        ran = subprocess.run([str(word) for word in words], capture_output=True, text=True)
        if ran.returncode != 0:
            sys.exit(f"{self.name}: {ran.stderr}")
        report = json.loads(ran.stdout)
        if report["failed"] or report["missing"]:
            sys.exit(f"{self.name}: {report['failed']} requests failed, {report['missing']} found nothing")
        return report

    def load(self, keys, item_bytes):
        self.drive("load", 64, 0, keys, item_bytes)

    def measure(self, workload, connections, seconds, keys, item_bytes):
        report = self.drive(workload, connections, seconds, keys, item_bytes)
        cpu, latencies = sum(report["cpu_s"]), report["latencies_us"]
        return {
            "rate": report["rate"], "p50": latencies["p50"], "p99": latencies["p99"],
            "p99.9": latencies["p99.9"], "per_cpu_s": report["requests"] / max(cpu, 1e-9),
            "generator_us": 1e6 * report["generator_cpu_s"] / max(report["requests"], 1),
        }

    def stop(self):
        for server in self.servers:
            server.stop()


class Redis(Driven):
    """One server, one copy."""

    name = "redis"

    def __init__(self, folder, options):
        need("redis-server", "redis-cli")
        server, port = redis_server(folder)
        super().__init__(options.driver, "redis", [f"127.0.0.1:{port}"], [server])


class Etcd(Driven):
    """Three members; all connections go to the leader, which serves etcd best."""

    name = "etcd"

    def __init__(self, folder, options):
        need("etcd")
        ports = free_ports(6)
        names = ["one", "two", "three"]
        peers = {name: f"http://127.0.0.1:{port}" for name, port in zip(names, ports)}
        clients = {name: f"http://127.0.0.1:{port}" for name, port in zip(names, ports[3:])}
        servers = []
        for name in names:
            command = ["etcd", "--name", name, "--data-dir", os.path.join(folder, f"etcd-{name}")]
            command += ["--listen-peer-urls", peers[name], "--initial-advertise-peer-urls", peers[name]]
            command += ["--listen-client-urls", clients[name], "--advertise-client-urls", clients[name]]
            command += ["--initial-cluster", ",".join(f"{other}={url}" for other, url in peers.items())]
            command += ["--initial-cluster-state", "new", "--quota-backend-bytes", str(8 << 30)]
            # Old revisions would grow without end; a minute of them is the least that there is.
            command += ["--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1m"]
            servers.append(Server(folder, f"etcd-{name}", command, {"ETCD_LOG_LEVEL": "warn"}))
        for server, port in zip(servers, ports[3:]):
            server.wait_for(port)
        leader = self.leader(list(clients.values()), servers)
        super().__init__(options.driver, "etcd", [leader.removeprefix("http://")], servers)

    @staticmethod
    def leader(urls, servers):
        for _ in range(600):
            for url in urls:
                try:
                    asked = urllib.request.Request(f"{url}/v3/maintenance/status", data=b"{}")
                    with urllib.request.urlopen(asked, timeout=5) as answer:
                        status = json.load(answer)
                    if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                        return url
                except OSError:
                    for server in servers:
                        server.check()
            time.sleep(0.1)
        sys.exit("etcd elects no leader")


class Limit(Driven):
    """The bare three-log loop: what two durable copies of three cost at the least."""

    name = "limit"

    def __init__(self, folder, options, item_bytes):
        self.name = f"limit-{item_bytes}"
        ports = free_ports(3)
        servers = []
        for number, port in enumerate(ports[:2]):
            log = os.path.join(folder, f"follower-{number}-{item_bytes}.log")
            command = [options.driver, "follow", "--listen", f"127.0.0.1:{port}", "--log", log]
            servers.append(Server(folder, f"follower-{number}-{item_bytes}", command))
        for server, port in zip(servers, ports[:2]):
            wait_for_listener(server, port)
        command = [options.driver, "limit", "--listen", f"127.0.0.1:{ports[2]}"]
        command += ["--followers", ",".join(f"127.0.0.1:{port}" for port in ports[:2])]
        command += ["--item-bytes", str(item_bytes), "--log", os.path.join(folder, f"leader-{item_bytes}.log")]
        servers.append(Server(folder, f"leader-{item_bytes}", command))
        servers[-1].wait_for(ports[2])
        super().__init__(options.driver, "redis", [f"127.0.0.1:{ports[2]}"], servers)


def wait_for_listener(server, port):
    """Waits for a listener without connecting to it: a follower takes one connection only."""
    wanted = f"{port:04X}"
    for _ in range(1200):
        with open("/proc/net/tcp") as table:
            rows = [row.split() for row in table.readlines()[1:]]
        if any(row[3] == "0A" and row[1].endswith(f":{wanted}") for row in rows):
            return
        server.check()
        time.sleep(0.05)
    server.fail("does not listen")


class Ours(Evenkeel):
    """Three storage processes, two MemDS servers and one router."""

    name = "evenkeel"

    def __init__(self, folder, options):
        words = ["--nodes", "3", "--memds", "2", "--routers", "1", "--port", "0"]
        words += ["--segment-mib", str(options.segment_mib), "--cache-mib", str(options.cache_mib)]
        words += ["--reserve-mib", str(options.reserve_mib)]
        super().__init__(folder, options.evenkeel, words)

    def with_partitions(self, partitions):
        """The cluster, with tables that have so many."""
        return OurTables(self, partitions)


class OurTables:
    """A cluster of ours by way of tables with a number of partitions."""

    def __init__(self, cluster, partitions):
        self.cluster, self.partitions = cluster, partitions

    def bench(self, workload, connections, seconds, keys, item_bytes, more):
        table = ["--table", f"bench{item_bytes}x{self.partitions}", "--partitions", str(self.partitions)]
        return self.cluster.bench(workload, connections, seconds, keys, item_bytes, [*table, *more])

    def load(self, keys, item_bytes):
        # The shortest measurement of a workload that reads writes all keys first.
        self.bench("get", 64, 1, keys, item_bytes, [])

    def measure(self, workload, connections, seconds, keys, item_bytes):
        own = os.times()
        report = self.bench(workload, connections, seconds, keys, item_bytes,
                            ["--no-preload", "--warm-up", "1s"])
        spent = os.times()
        generator = spent.children_user + spent.children_system - own.children_user - own.children_system
        latencies, servers = report["latencies_us"], report["servers"]
        requests = report["rate"] * seconds
        return {
            "rate": report["rate"], "p50": latencies["p50"], "p99": latencies["p99"],
            "p99.9": latencies.get("p99.9"), "per_cpu_s": servers["all"]["requests_per_cpu_second"],
            "storage_router_per_cpu_s": servers["storage+router"]["requests_per_cpu_second"],
            # With its second of warming up.
            "generator_us": 1e6 * generator * seconds / (seconds + 1) / max(requests, 1),
        }


def medians(rows):
    """The median of each figure that every row has."""
    keys = [key for key in rows[0] if all(row.get(key) is not None for row in rows)]
    return {key: statistics.median(row[key] for row in rows) for key in keys}


def fingerprint(folder):
    """What decides figures on this host."""
    def first(path, key):
        with open(path) as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "unknown")

    version = {"redis": ["redis-server", "--version"], "etcd": ["etcd", "--version"]}
    versions = {}
    for name, command in version.items():
        if shutil.which(command[0]):
            said = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
            versions[name] = said[0] if said else "unknown"
    with open("/proc/mounts") as mounts:
        mounts = [line.split()[:4] for line in mounts]
    inside = [mount for mount in mounts if os.path.realpath(folder).startswith(mount[1])]
    device, _, kind, flags = max(inside, key=lambda mount: len(mount[1]))
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "kernel": platform.release(), "cpu": first("/proc/cpuinfo", "model name"), "cpus": os.cpu_count(),
        "memory": first("/proc/meminfo", "MemTotal"), "disk": f"{kind} on {device}, {flags}",
        "load_average": round(os.getloadavg()[0], 1), "versions": versions,
    }
