"""What a write to another host costs its two routers, with so many queue pairs between the hosts.

python -m benchmarks.remote_qps COUNT [--iters N]

The hosts are two network namespaces with a router each, the queue pairs are those of one container on either. At most
ACTIVE of them are used, with DEPTH writes of 8 bytes outstanding each; the others are connected, and idle. Prints one
JSON object: the processor time of both routers a write, in ns, of the median and of the best batch.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any, Final, cast

import ffverbs.libibverbs_enums as e
from ffverbs.wr import SGE, SendWR
from tests.conformance.pair import Peer
from tests.conformance.paths import begin, serve, spawn
from tests.lab.many import DEPTH, HostOfMany
from tests.lab.network import NetHosts, Network, unavailable

ACTIVE: Final = 16
BATCHES: Final = 5
SETTLE_S: Final = 0.2  # a router is at rest when it needs next to nothing for so long
SETTLED_NS: Final = 2_000_000
SETTLE_DEADLINE_S: Final = 30
_MAIN: Final = "import sys; from benchmarks.remote_qps import host_main; host_main(sys.argv[1])"


class WritingHost(HostOfMany):
    """The container of one host, which obeys."""

    def write(self, count: int) -> None:
        """Write 8 bytes `count` times through the first ACTIVE queue pairs."""
        peer = self._peers[0]
        objects = peer._objects
        sge = SGE(peer._memory.buf, 8, peer._memory.lkey)
        wrs = []
        for qp in range(min(ACTIVE, len(objects.qps))):
            to = self._where[0, qp]
            wr = SendWR(qp, int(e.IBV_WR_RDMA_WRITE), 1, 0, [sge])
            wr.set_wr_rdma(to.rkey, to.addr)
            wrs.append(wr)
        left, under_way = count, 0
        for qp, wr in enumerate(wrs):
            for _ in range(min(DEPTH, left)):
                objects.qps[qp].post_send(wr)
                left, under_way = left - 1, under_way + 1
        while under_way:
            for wc in cast(Any, objects.send_cq).poll(64)[1]:
                if wc.status:
                    raise RuntimeError(f"a write failed: status {wc.status}")
                under_way -= 1
                if left:
                    objects.qps[wc.wr_id].post_send(wrs[wc.wr_id])
                    left, under_way = left - 1, under_way + 1


def host_main(address: str) -> None:
    """Be the process of a host's container."""
    serve(Client(address, "AF_UNIX"), cast(Peer, WritingHost()))


def _cpu_ns(pid: int) -> int:
    """Return the processor time of all threads of a process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text(encoding="ascii").split()[0]) for task in tasks)


def _settle(pids: Sequence[int]) -> None:
    """Wait until what connecting so many queue pairs has left to do is done."""
    deadline = time.monotonic() + SETTLE_DEADLINE_S
    while time.monotonic() < deadline:
        before = sum(map(_cpu_ns, pids))
        time.sleep(SETTLE_S)
        if sum(map(_cpu_ns, pids)) - before < SETTLED_NS:
            return
    raise SystemExit(f"the routers are not at rest after {SETTLE_DEADLINE_S} s")


def measure(count: int, iters: int) -> dict[str, Any]:
    """Connect `count` queue pairs and return the least of BATCHES batches of `iters` writes."""
    names = ("a", "b")
    with Network(names) as network, NetHosts(network) as cluster:
        made = [
            cast(Peer, spawn(cluster.folder, f"w-{name}", _MAIN, cluster.environment(name), network.enter_nowhere()))
            for name in names
        ]
        try:
            (here,), (there,) = [
                begin(one, "open", cluster.container_ips(name), [count])()
                for one, name in zip(made, names, strict=True)
            ]
            for own, to in ((made[0], there), (made[1], here)):
                begin(own, "connect", [(0, qp, to, to.qpns[qp]) for qp in range(count)])()
            begin(made[0], "touch", [(0, qp) for qp in range(count)])()
            routers = [cluster.pid(name) for name in names]
            begin(made[0], "write", iters)()
            _settle(routers)
            found = []
            for _ in range(BATCHES):
                before = sum(map(_cpu_ns, routers))
                begin(made[0], "write", iters)()
                found.append((sum(map(_cpu_ns, routers)) - before) / iters)
        finally:
            for one in made:
                cast(Any, one)._end()
    numbers = {"ns_per_message": statistics.median(found), "best_ns": min(found)}
    return {"test": "remote", "count": count, "iters": iters, **numbers}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remote_qps", description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--iters", type=int, default=20_000)
    args = parser.parse_args()
    if reason := unavailable():
        print(reason, file=sys.stderr)
        return 1
    print(json.dumps(measure(args.count, args.iters)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
