"""In the lab's machine: three hosts, c without an RDMA device; a router's goodbye to both kinds; a device by its name.

    python -m tests.lab.triangle

Says what it sees, one line a thing; an assertion that fails, or a hang, is its end. Started by test_rdma.py.
"""

import subprocess
import time
from itertools import combinations
from typing import cast

import ffverbs.libibverbs_enums as e
from tests.conformance.pair import RC, Options, Pair, Peer, Send
from tests.hosts import Hosts
from tests.lab.rdma_guest import ADDRESSES, DEADLINE_S, PATIENT, send, staged, status, write_and_read

OPTIONS = Options(qp_type=RC, length=1 << 20)
ENDED = (int(e.IBV_WC_RETRY_EXC_ERR), int(e.IBV_WC_WR_FLUSH_ERR))


def try_pair(pair: Pair) -> None:
    """Do a bit of everything between two of them."""
    pair.connect(OPTIONS, **PATIENT)
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
        pair.connect(OPTIONS, **PATIENT)
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


def by_hand(hosts: Hosts, pair: Pair) -> None:
    """The router of b begins anew with a device and a GID that it was told."""
    hosts.start("b", "--rdma-device", "rxe1", "--rdma-gid-index", "1")
    hosts.wait("b")
    try_pair(pair)
    print("by hand:", said(hosts, "b", "a"), flush=True)


def main() -> None:
    """Do all of it."""
    subprocess.run(["ip", "address", "add", f"{ADDRESSES['c']}/32", "dev", "lo"], check=True)
    with staged("a", "b", "c", "b") as (hosts, remotes):
        *all_peers, spare = (cast(Peer, remote) for remote in remotes)
        peers = dict(zip(hosts.names, all_peers, strict=True))
        for one, other in combinations(hosts.names, 2):
            try_pair(Pair(peers[one], peers[other], "rdma"))
        check_carriers(hosts)
        goodbye(hosts, peers, spare)
        by_hand(hosts, Pair(peers["a"], peers["b"], "rdma"))
    print("done", flush=True)


if __name__ == "__main__":
    main()
