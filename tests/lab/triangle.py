"""In the lab's machine: three hosts, two with an RDMA device and one without; and a router's goodbye to both kinds.

    python -m tests.lab.triangle

Says what it sees, one line a thing; an assertion that fails, or a hang, is its end. Started by test_rdma.py.
"""

import subprocess
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import cast

import ffverbs.libibverbs_enums as e
from tests.conformance.pair import RC, Options, Pair, Peer, Send
from tests.conformance.paths import _Remote, spawn
from tests.hosts import Hosts
from tests.lab.rdma_guest import DEADLINE_S, send, status, write_and_read

ADDRESSES = {"a": "192.0.2.1", "b": "192.0.2.2", "c": "192.0.2.3"}
OPTIONS = Options(qp_type=RC, length=1 << 20)
ENDED = (int(e.IBV_WC_RETRY_EXC_ERR), int(e.IBV_WC_WR_FLUSH_ERR))


class MixedHosts(Hosts):
    """Hosts of which c has no RDMA device at its address."""

    def address(self, name: str) -> str:
        return ADDRESSES[name]

    def options(self) -> list[str]:
        return ["--transport", "auto"]


def try_pair(pair: Pair) -> None:
    """Do a bit of everything between two of them."""
    pair.connect(OPTIONS, timeout=20, retry_cnt=7)
    for size in (64, 200_001):
        send(pair, size)
        write_and_read(pair, size)
    pair.close()


def said(hosts: Hosts, name: str, other: str) -> str:
    """Return what a host says of how it reaches another."""
    return str(status(hosts, name)["channels"].get(other, "not connected"))


def check_carriers(hosts: Hosts) -> None:
    """RDMA carries where both ends have it, TCP elsewhere; each end says so, and why."""
    for one, other in (("a", "b"), ("b", "a"), ("a", "c"), ("b", "c"), ("c", "a"), ("c", "b")):
        print(f"{one} to {other}: {said(hosts, one, other)}", flush=True)


def wait_for_goodbye(hosts: Hosts, name: str) -> None:
    """Wait until a host has heard that the router of b ended its channel."""
    deadline = time.monotonic() + DEADLINE_S
    while "the other router ended it" not in hosts.log(name):
        assert time.monotonic() < deadline, hosts.log(name)
        time.sleep(0.1)  # logs tell nobody
    assert "is lost" not in hosts.log(name), hosts.log(name)


def goodbye(hosts: Hosts, peers: dict[str, Peer], spare: Peer) -> None:
    """The router of b stops with sends under way to it: by RDMA and by TCP the same is seen."""
    pairs = [Pair(peers["a"], peers["b"], "rdma"), Pair(peers["c"], spare, "tcp")]
    for pair in pairs:
        pair.connect(OPTIONS, timeout=20, retry_cnt=7)
        send(pair, 64)
        pair.a.post_send(Send(7))  # nobody receives: it waits over there
    hosts.stop("b")
    for pair in pairs:
        assert pair.a.poll("send", 1, DEADLINE_S)[0].status in ENDED
    for name in "ac":
        wait_for_goodbye(hosts, name)
    for pair in pairs:
        pair.close()
    print("goodbye: heard by both", flush=True)


def main() -> None:
    """Do all of it."""
    subprocess.run(["ip", "address", "add", f"{ADDRESSES['c']}/32", "dev", "lo"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        hosts = MixedHosts(Path(folder), ("a", "b", "c"))
        remotes: list[_Remote] = []
        try:
            for name in (*hosts.names, "b"):
                remotes.append(spawn(Path(folder), f"w{len(remotes)}", env=hosts.environment(name)))
            *all_peers, spare = (cast(Peer, remote) for remote in remotes)
            peers = dict(zip(hosts.names, all_peers, strict=True))
            for one, other in combinations(hosts.names, 2):
                try_pair(Pair(peers[one], peers[other], "rdma"))
            check_carriers(hosts)
            goodbye(hosts, peers, spare)
        finally:
            for remote in remotes:
                remote._end()
            hosts.close()
    print("done", flush=True)


if __name__ == "__main__":
    main()
