"""What ffverbs costs while nothing moves: CPU of an idle connection, memory of a queue pair, many queue pairs.

python -m benchmarks.resources idle|memory|many    prints one JSON object

Through the Python API; kilobytes are KiB. Each runs in a process of its own, so nothing else is counted.
"""

import argparse
import json
import multiprocessing
import os
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from ffverbs.addr import GID, AHAttr, GlobalRoute
from ffverbs.cq import CQ
from ffverbs.device import Context
from ffverbs.libibverbs_enums import (
    IBV_ACCESS_LOCAL_WRITE,
    IBV_MTU_4096,
    IBV_QPT_RC,
    IBV_WC_RECV,
    IBV_WC_SUCCESS,
)
from ffverbs.mr import MR
from ffverbs.pd import PD
from ffverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from ffverbs.wr import SGE, RecvWR, SendWR

PORT: Final = 1
GID_INDEX: Final = 1  # the IPv4-mapped one
MESSAGE_BYTES: Final = 8
COMPLETION_DEADLINE_S: Final = 10
MEMORY_QPS: Final = 1000
MANY_QPS: Final = 10_000


class Node:
    """A context with what its queue pairs need: PD, one CQ for all of them, memory for a message out and one in."""

    def __init__(self, cqe: int) -> None:
        self.context = Context(name="ffv0")
        self.gid = str(self.context.query_gid(PORT, GID_INDEX))
        self.pd = PD(self.context)
        self.cq = CQ(self.context, cqe)
        self.mr = MR(self.pd, 2 * MESSAGE_BYTES, IBV_ACCESS_LOCAL_WRITE)

    def create_qp(self) -> QP:
        """Create an RC queue pair with the default depths."""
        init = QPInitAttr(qp_type=IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=QPCap())
        return QP(self.pd, init)

    def connect(self, qp: QP, gid: str, qp_num: int, access: int = 0) -> None:
        """Bring `qp` to RTS, connected to `qp_num` at `gid`, which may do what `access` allows."""
        attr = QPAttr(port_num=PORT, path_mtu=IBV_MTU_4096)
        attr.qp_access_flags = access
        attr.dest_qp_num = qp_num
        attr.ah_attr = AHAttr(port_num=PORT, is_global=1, gr=GlobalRoute(dgid=GID(gid), sgid_index=GID_INDEX))
        attr.max_rd_atomic = attr.max_dest_rd_atomic = 1
        attr.min_rnr_timer, attr.timeout, attr.retry_cnt, attr.rnr_retry = 12, 14, 7, 7
        qp.to_rts(attr)

    def post_recv(self, qp: QP) -> None:
        sge = SGE(self.mr.buf + MESSAGE_BYTES, MESSAGE_BYTES, self.mr.lkey)
        qp.post_recv(RecvWR(wr_id=qp.qp_num, num_sge=1, sg=[sge]))

    def post_send(self, qp: QP, value: int) -> None:
        self.mr.write(value.to_bytes(MESSAGE_BYTES, "big"), MESSAGE_BYTES)
        qp.post_send(SendWR(wr_id=qp.qp_num, num_sge=1, sg=[SGE(self.mr.buf, MESSAGE_BYTES, self.mr.lkey)]))

    def received(self) -> int:
        """Return what the last message brought."""
        return int.from_bytes(self.mr.read(MESSAGE_BYTES, MESSAGE_BYTES), "big")

    def complete(self, count: int) -> list[int]:
        """Poll until there are `count` completions, all good; return the opcodes."""
        opcodes: list[int] = []
        end = time.monotonic() + COMPLETION_DEADLINE_S
        while len(opcodes) < count:
            _, completions = self.cq.poll(count - len(opcodes))
            for wc in completions:
                if wc.status != IBV_WC_SUCCESS:
                    raise SystemExit(f"QP {wc.qp_num}: completion with status {wc.status}")
                opcodes.append(int(wc.opcode))
            if time.monotonic() > end:
                raise SystemExit(f"{len(opcodes)} of {count} completions after {COMPLETION_DEADLINE_S} s")
        return opcodes


def _connect_pair(connection: Connection) -> tuple[Node, QP]:
    node = Node(16)
    qp = node.create_qp()
    connection.send((node.gid, qp.qp_num))
    gid, qp_num = connection.recv()
    node.connect(qp, gid, qp_num)
    node.post_recv(qp)
    connection.send("connected")
    connection.recv()
    return node, qp


def _exchange(node: Node, qp: QP) -> None:
    """Send a message and take the peer's: the connection is not only there, it is in use."""
    node.post_send(qp, 42)
    if sorted(node.complete(2))[-1] != IBV_WC_RECV or node.received() != 42:
        raise SystemExit(f"the peer's message came as {node.received()}, not 42")


def _usage() -> tuple[int, int]:
    """CPU ns of all threads of this process, and how often one of them gave its core up or lost it."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return time.process_time_ns(), usage.ru_nvcsw + usage.ru_nivcsw


def _idle_side(connection: Connection, seconds: float) -> None:
    """Be one end of the pair; answers with CPU ns and switches of the time in which only the sleep was done."""
    node, qp = _connect_pair(connection)
    _exchange(node, qp)
    connection.send("idle")
    connection.recv()
    cpu, switches = _usage()
    time.sleep(seconds)
    cpu_after, switches_after = _usage()
    connection.send((cpu_after - cpu, switches_after - switches))
    connection.recv()
    node.context.close()


def idle(seconds: float = 5) -> dict[str, Any]:
    """CPU time that two connected processes use while both do nothing, each in `seconds`."""
    spawn = multiprocessing.get_context("spawn")
    ends = [spawn.Pipe() for _ in range(2)]
    sides = [spawn.Process(target=_idle_side, args=(theirs, seconds), daemon=True) for _, theirs in ends]
    for side in sides:
        side.start()
    for _, theirs in ends:
        theirs.close()
    first, second = (mine for mine, _ in ends)
    for _ in range(3):  # addresses, "connected", "idle"
        from_first, from_second = first.recv(), second.recv()
        second.send(from_first)
        first.send(from_second)
    results = [first.recv(), second.recv()]
    for mine, _ in ends:
        mine.send("done")
    for side in sides:
        side.join()
    # The sleep itself: one switch, and the microseconds of two clock readings.
    return {
        "test": "idle",
        "seconds": seconds,
        "cpu_ns": max(cpu for cpu, _ in results),
        "switches": max(switches for _, switches in results),
    }


def memory_bytes() -> dict[str, int]:
    """Memory of this process: private pages, and what its memfds hold (arena and mirror), mapped here or not."""
    rollup = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    seen: dict[int, int] = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:"):
                stat = os.stat(f"/proc/self/fd/{fd}")
                seen[stat.st_ino] = stat.st_blocks * 512
        except FileNotFoundError:
            continue  # the descriptor that listed the directory
    kib = {name: int(value.split()[0]) for name, value in rollup.items()}
    return {"private": kib["Anonymous"] * 1024, "memfd": sum(seen.values()), "rss": kib["Rss"] * 1024}


def memory() -> dict[str, Any]:
    """Memory of a connected RC queue pair with default depths, as the mean over many; each is connected to itself."""
    node = Node(16)
    warm = node.create_qp()
    node.connect(warm, node.gid, warm.qp_num)
    before = memory_bytes()
    qps = [node.create_qp() for _ in range(MEMORY_QPS)]
    for qp in qps:
        node.connect(qp, node.gid, qp.qp_num)
    after = memory_bytes()
    each = {kind: (after[kind] - before[kind]) / len(qps) for kind in after}
    node.context.close()
    return {
        "test": "memory",
        "queue_pairs": len(qps),
        "bytes_per_qp": each["private"] + each["memfd"],
        "private_bytes_per_qp": each["private"],
        "memfd_bytes_per_qp": each["memfd"],
        "rss_bytes_per_qp": each["rss"],
    }


def many() -> dict[str, Any]:
    """Many queue pairs of one context, each connected to itself, each carrying a message of its own that is checked."""
    start = time.monotonic()
    node = Node(16)
    qps = [node.create_qp() for _ in range(MANY_QPS)]
    if len({qp.qp_num for qp in qps}) != MANY_QPS:
        raise SystemExit("two queue pairs have one number")
    for qp in qps:
        node.connect(qp, node.gid, qp.qp_num)
        node.post_recv(qp)
    for qp in qps:
        node.post_send(qp, qp.qp_num)
        node.complete(2)
        if node.received() != qp.qp_num:
            raise SystemExit(f"QP {qp.qp_num} received {node.received()}")
    usage = memory_bytes()
    node.context.close()
    seconds = time.monotonic() - start
    total = usage["private"] + usage["memfd"]
    return {"test": "many", "queue_pairs": len(qps), "messages_checked": len(qps), "seconds": seconds, "bytes": total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tests = {"idle": idle, "memory": memory, "many": many}
    parser.add_argument("test", choices=tests)
    print(json.dumps(tests[parser.parse_args().test]()))


if __name__ == "__main__":
    main()
