"""Many virtual queue pairs between many containers of several hosts: what they cost a router, and who gets how much.

`python -m tests.lab.many` is the whole of it (four hosts, forty containers, 2 000 queue pairs, all to all) and prints
figures; test_many.py is its short form. The containers of a host are contexts of one process, with an address each.
"""

import argparse
import itertools
import json
import os
import sys
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any, cast

import ffverbs.libibverbs_enums as e
from tests.conformance.pair import Address, Options, Peer, Send
from tests.conformance.paths import begin, serve, spawn
from tests.lab.network import NetHosts, Network

__all__ = ["Figures", "HostOfMany", "main", "run"]

_MAIN = "import sys; from tests.lab.many import host_main; host_main(sys.argv[1])"
MESSAGE_BYTES = 16384
DEPTH = 4
_CQE = 8192
PATIENT: dict[str, int] = {"timeout": 20, "retry_cnt": 7}


class HostOfMany:
    """The containers of one host, which obey: each a context with queue pairs to others."""

    def __init__(self) -> None:
        self._peers: list[Peer] = []
        self._where: dict[tuple[int, int], Address] = {}
        self._places: list[dict[int, int]] = []

    def open(self, ips: list[str], counts: list[int]) -> list[Address]:
        """Make a container for each address, with so many queue pairs."""
        for ip, count in zip(ips, counts, strict=True):
            os.environ["FFVERBS_IP"] = ip
            peer = Peer()
            peer.create(Options(qps=count, send_wr=DEPTH, recv_wr=1, send_cqe=_CQE))
            self._peers.append(peer)
        addresses = [peer.address() for peer in self._peers]
        self._places = [{qpn: i for i, qpn in enumerate(address.qpns)} for address in addresses]
        return addresses

    def connect(self, links: list[tuple[int, int, Address, int]]) -> None:
        """Connect queue pair `qp` of container `which` to the one of that number at an address, for each."""
        for which, qp, address, qpn in links:
            to = self._where[which, qp] = replace(address, qpns=(qpn,) * (qp + 1))
            self._peers[which].connect(to, qp, **PATIENT)

    def touch(self, links: list[tuple[int, int]]) -> None:
        """Have each of them write once, so that both routers know it, and wait until all are idle again."""
        for which, qp in links:
            self._post(which, qp, 8)
        for which, peer in enumerate(self._peers):
            for done in peer.poll("send", sum(w == which for w, _ in links), 120.0):
                assert done.ok, done

    def _post(self, which: int, qp: int, length: int = MESSAGE_BYTES) -> None:
        to = self._where[which, qp]
        write = Send(opcode=int(e.IBV_WR_RDMA_WRITE), pieces=((0, length),), remote=to.addr, rkey=to.rkey, wr_id=qp)
        self._peers[which].post_send(write, qp=qp)

    def load(self, seconds: float) -> list[int]:
        """Keep every queue pair busy for so long; return how many writes each has had done meanwhile."""
        rates = dict.fromkeys(self._where, 0)
        for which, qp in self._where:
            for _ in range(DEPTH):
                self._post(which, qp)
        end, under_way = time.monotonic() + seconds, DEPTH * len(self._where)
        while under_way:
            for which, peer in enumerate(self._peers):
                for done in peer.poll_now("send", 256):
                    assert done.ok, done
                    under_way -= 1
                    if time.monotonic() < end:
                        rates[which, done.wr_id] += 1
                        under_way += 1
                        self._post(which, done.wr_id)
        return list(rates.values())

    def close(self) -> None:
        for peer in self._peers:
            peer.close()
        self._peers = []


def host_main(address: str) -> None:
    """Be the process of a host's containers."""
    serve(Client(address, "AF_UNIX"), cast(Peer, HostOfMany()))


@dataclass(frozen=True)
class Figures:
    """What was found; bytes of memory are a router's private ones, shared files (arenas) left out."""

    hosts: int
    containers: int
    queue_pairs: int
    connections: dict[str, int]
    bytes_idle: dict[str, float]  # a queue pair more, with everything else in place
    bytes_whole: dict[str, float]  # all growth since nobody was connected, a queue pair
    writes: int
    seconds: float
    slowest_to_mean: float
    slowest_to_mean_by_host: dict[str, float]


def _private_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024


def _settled_bytes(pids: dict[str, int], settles: bool) -> dict[str, int]:
    """Return the same of every router at rest: within seconds it gives back what a burst needed, and then no more."""
    found = {name: _private_bytes(pid) for name, pid in pids.items()}
    same, deadline = 0, time.monotonic() + 60
    while settles and same < 3 and time.monotonic() < deadline:
        time.sleep(1.0)
        now = {name: _private_bytes(pid) for name, pid in pids.items()}
        same = same + 1 if now == found else 0
        found = now
    return found


def _pairs(hosts: int, containers: int, count: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Choose who is connected to whom: every two containers of different hosts in turn, until there are enough."""
    everybody = [(h, c) for c in range(containers) for h in range(hosts)]
    across = [(a, b) for a, b in itertools.combinations(everybody, 2) if a[0] != b[0]]
    return list(itertools.islice(itertools.cycle(across), count // 2))


def run(
    hosts: int = 4, containers: int = 40, queue_pairs: int = 2000, seconds: float = 10.0, *, settles: bool = True
) -> Figures:
    """Build it all, and measure. Memory means something only if it `settles` before it is looked at."""
    names, each = tuple("abcdefgh"[:hosts]), containers // hosts
    pairs = _pairs(hosts, each, queue_pairs)
    counts = {(h, c): 0 for h in range(hosts) for c in range(each)}
    links: list[tuple[tuple[int, int], int, tuple[int, int], int]] = []
    for a, b in pairs:
        links.append((a, counts[a], b, counts[b]))
        counts[a] += 1
        counts[b] += 1
    with Network(names) as network, NetHosts(network, each) as cluster:
        made = [spawn(cluster.folder, f"m-{n}", _MAIN, cluster.environment(n), network.enter_nowhere()) for n in names]
        try:
            return _measure(cluster, cast(list[HostOfMany], made), counts, links, seconds, settles)
        finally:
            for remote in made:
                remote._end()


def _all(made: list[HostOfMany], method: str, *args: list[Any]) -> list[Any]:
    answers = [begin(cast(Peer, one), method, *(a[i] for a in args)) for i, one in enumerate(made)]
    return [answer() for answer in answers]


def _measure(
    cluster: NetHosts, made: list[HostOfMany], counts: dict[tuple[int, int], int],
    links: list[tuple[tuple[int, int], int, tuple[int, int], int]], seconds: float, settles: bool,
) -> Figures:  # fmt: skip
    hosts, each = len(made), cluster.containers
    where = _all(
        made, "open", [cluster.container_ips(n) for n in cluster.names],
        [[counts[h, c] for c in range(each)] for h in range(hosts)],
    )  # fmt: skip
    pids = {name: cluster.pid(name) for name in cluster.names}
    memory = [_settled_bytes(pids, settles)]
    # First every two containers once, and enough for buffers and tables: the rest is queue pairs and nothing else.
    first = max(len({(a, b) for a, _, b, _ in links}), len(links) // 4)
    for part in (links[:first], links[first:]):
        todo: list[list[tuple[int, int, Address, int]]] = [[] for _ in range(hosts)]
        for (ha, ca), qa, (hb, cb), qb in part:
            todo[ha].append((ca, qa, where[hb][cb], where[hb][cb].qpns[qb]))
            todo[hb].append((cb, qb, where[ha][ca], where[ha][ca].qpns[qa]))
        _all(made, "connect", todo)
        _all(made, "touch", [[(which, qp) for which, qp, _, _ in mine] for mine in todo])
        memory.append(_settled_bytes(pids, settles))
    connections = {name: cluster.network.connections(name) for name in cluster.names}
    rates = _all(made, "load", [seconds] * hosts)
    every = list(itertools.chain(*rates))
    per_host = len(every) / hosts
    return Figures(
        hosts, hosts * each, len(every), connections,
        {name: (memory[2][name] - memory[1][name]) / (per_host - 2 * first / hosts) for name in pids},
        {name: (memory[2][name] - memory[0][name]) / per_host for name in pids},
        sum(every), seconds, min(every) / (sum(every) / len(every)),
        {name: min(r) / (sum(r) / len(r)) for name, r in zip(cluster.names, rates, strict=True)},
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.many", description=__doc__)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--containers", type=int, default=40)
    parser.add_argument("--qps", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    figures = run(args.hosts, args.containers, args.qps, args.seconds)
    print(json.dumps(figures.__dict__, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
