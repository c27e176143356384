"""Two processes play ping-pong over a reliable connection, then read and write each other's memory.

Written against pyverbs alone. On RDMA hardware run it with `python3`; without any, with `python -m ffverbs`:

    python -m ffverbs rc_pingpong.py server /tmp/pingpong.sock
    python -m ffverbs rc_pingpong.py client /tmp/pingpong.sock

The two find each other by a socket, a path as above or HOST:PORT, over which they say where their queue pairs and
buffers are. Everything else goes over RDMA.
"""

import argparse
import contextlib
import json
import os
import socket
import sys
import time
from typing import Any

from pyverbs.addr import GID, AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context, get_device_list
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

try:
    import pyverbs.libibverbs_enums as e
except ImportError:  # pyverbs 44
    import pyverbs.enums as e

SIZE = 4096
PORT = 1
DEADLINE_S = 30
PATTERN = bytes(range(251)) * (SIZE // 251 + 2)
REMOTE_ACCESS = e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ | e.IBV_ACCESS_REMOTE_ATOMIC


class Endpoint:
    """One side: a queue pair, and memory that holds [what we send | what we receive | a counter]."""

    def __init__(self, gid_index: int) -> None:
        name = get_device_list()[0].name.decode()
        self.context = Context(name=name)
        self.gid_index = gid_index
        self.pd = PD(self.context)
        self.mr = MR(self.pd, 2 * SIZE + 8, e.IBV_ACCESS_LOCAL_WRITE | REMOTE_ACCESS)
        # A queue for each kind: an answer may arrive before the completion of what it answers.
        self.sent, self.received = CQ(self.context, 16), CQ(self.context, 16)
        cap = QPCap(max_send_wr=8, max_recv_wr=8)
        self.qp = QP(self.pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.sent, rcq=self.received, cap=cap))
        self.peer: dict[str, Any] = {}

    def address(self) -> dict[str, Any]:
        """Return what the other side needs to reach this one."""
        gid = str(self.context.query_gid(PORT, self.gid_index))
        return {"gid": gid, "qpn": self.qp.qp_num, "addr": self.mr.buf, "rkey": self.mr.rkey}

    def connect(self, peer: dict[str, Any]) -> None:
        """Bring the queue pair to RTS, connected to the other side."""
        self.peer = peer
        attr = QPAttr(port_num=PORT)
        attr.qp_access_flags = REMOTE_ACCESS
        attr.path_mtu = e.IBV_MTU_1024
        attr.dest_qp_num = peer["qpn"]
        attr.min_rnr_timer, attr.rnr_retry = 12, 7
        attr.timeout, attr.retry_cnt = 14, 7
        attr.max_rd_atomic = attr.max_dest_rd_atomic = 1
        route = GlobalRoute(dgid=GID(peer["gid"]), sgid_index=self.gid_index)
        attr.ah_attr = AHAttr(port_num=PORT, is_global=1, gr=route)
        self.qp.to_rts(attr)

    def complete(self, opcode: int) -> None:
        """Wait for the next completion, which must be a success of this kind."""
        cq = self.received if opcode == e.IBV_WC_RECV else self.sent
        deadline = time.monotonic() + DEADLINE_S
        while True:
            count, completions = cq.poll()
            if count:
                break
            if time.monotonic() > deadline:
                raise SystemExit(f"no completion within {DEADLINE_S} s")
        wc = completions[0]
        if wc.status != e.IBV_WC_SUCCESS or wc.opcode != opcode:
            raise SystemExit(f"expected a success of opcode {opcode}, got:\n{wc}")

    def post_receive(self) -> None:
        """Make room for a message."""
        self.qp.post_recv(RecvWR(num_sge=1, sg=[SGE(self.mr.buf + SIZE, SIZE, self.mr.lkey)]))

    def receive(self) -> bytes:
        """Wait for a message and return it."""
        self.complete(e.IBV_WC_RECV)
        return self.mr.read(SIZE, SIZE)

    def send(self, message: bytes) -> None:
        """Send a message of SIZE bytes."""
        self.mr.write(message, SIZE)
        self.qp.post_send(SendWR(opcode=e.IBV_WR_SEND, num_sge=1, sg=[SGE(self.mr.buf, SIZE, self.mr.lkey)]))

    def act(self, opcode: int, completes_as: int, length: int, remote_offset: int, add: int = 0) -> None:
        """Act on the peer's memory from (or into) the start of ours, and wait until it is done."""
        wr = SendWR(opcode=opcode, num_sge=1, sg=[SGE(self.mr.buf, length, self.mr.lkey)])
        where = self.peer["addr"] + remote_offset
        if opcode == e.IBV_WR_ATOMIC_FETCH_AND_ADD:
            wr.set_wr_atomic(self.peer["rkey"], where, add)
        else:
            wr.set_wr_rdma(self.peer["rkey"], where)
        self.qp.post_send(wr)
        self.complete(completes_as)


def expect(found: bytes, wanted: bytes, what: str) -> None:
    """End the program unless the bytes are those that should be there."""
    if found != wanted:
        raise SystemExit(f"{what}: found {found[:16]!r}..., wanted {wanted[:16]!r}...")
    print(f"{what}: ok", flush=True)


def message(number: int) -> bytes:
    """Return the message of this number."""
    start = number % 251
    return PATTERN[start : start + SIZE]


class Link:
    """The socket over which the two sides tell each other lines."""

    def __init__(self, connected: socket.socket) -> None:
        self.connected = connected
        self.lines = connected.makefile("r")

    def tell(self, line: str) -> None:
        """Send a line."""
        self.connected.sendall(line.encode() + b"\n")

    def hear(self) -> str:
        """Wait for the other side's next line and return it."""
        line = self.lines.readline()
        if not line.endswith("\n"):
            raise SystemExit("the other side is gone")
        return line.rstrip("\n")

    def meet(self) -> None:
        """Wait until the other side has come as far."""
        self.tell("here")
        self.hear()


def client(endpoint: Endpoint, link: Link, rounds: int) -> None:
    """Send, await answers, then act on the server's memory."""
    endpoint.post_receive()
    link.meet()
    start = time.perf_counter()
    for number in range(rounds):
        endpoint.send(message(number))
        endpoint.complete(e.IBV_WC_SEND)
        if endpoint.receive() != message(number + 1):
            raise SystemExit(f"round {number}: wrong answer")
        endpoint.post_receive()
    elapsed = time.perf_counter() - start
    print(f"{rounds} rounds of {SIZE} bytes, all checked, {1e6 * elapsed / rounds:.1f} us each", flush=True)

    endpoint.mr.write(b"w" * SIZE, SIZE)
    endpoint.act(e.IBV_WR_RDMA_WRITE, e.IBV_WC_RDMA_WRITE, SIZE, SIZE)
    link.meet()  # the server looks at what was written, and leaves something to read
    link.meet()
    endpoint.act(e.IBV_WR_RDMA_READ, e.IBV_WC_RDMA_READ, SIZE, 0)
    expect(endpoint.mr.read(SIZE, 0), b"r" * SIZE, "RDMA READ")
    endpoint.act(e.IBV_WR_ATOMIC_FETCH_AND_ADD, e.IBV_WC_FETCH_ADD, 8, 2 * SIZE, add=2)
    expect(endpoint.mr.read(8, 0), (40).to_bytes(8, sys.byteorder), "FETCH_ADD, the value before")
    link.meet()


def server(endpoint: Endpoint, link: Link, rounds: int) -> None:
    """Answer every message with the next one, then look at what the client did to our memory."""
    endpoint.post_receive()
    link.meet()
    for number in range(rounds):
        if endpoint.receive() != message(number):
            raise SystemExit(f"round {number}: wrong message")
        endpoint.post_receive()
        endpoint.send(message(number + 1))
        endpoint.complete(e.IBV_WC_SEND)

    link.meet()
    expect(endpoint.mr.read(SIZE, SIZE), b"w" * SIZE, "RDMA WRITE")
    endpoint.mr.write(b"r" * SIZE, SIZE)
    endpoint.mr.write((40).to_bytes(8, sys.byteorder), 8, 2 * SIZE)
    link.meet()
    link.meet()
    expect(endpoint.mr.read(8, 2 * SIZE), (42).to_bytes(8, sys.byteorder), "FETCH_ADD, the value after")


def open_link(role: str, address: str) -> socket.socket:
    """Return the connected socket of the two sides."""
    host, colon, port = address.rpartition(":")
    family = socket.AF_INET if colon else socket.AF_UNIX
    where: Any = (host, int(port)) if colon else address
    if role == "client":
        connected = socket.socket(family)
        connected.connect(where)
        return connected
    with socket.socket(family) as listener:
        listener.bind(where)
        try:
            listener.listen(1)
            print("listening", flush=True)
            return listener.accept()[0]
        finally:
            if family == socket.AF_UNIX:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(address)


def main() -> None:
    """Run one side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("role", choices=("server", "client"))
    parser.add_argument("address", help="where the two meet: a path or HOST:PORT")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--gid-index", type=int, default=1)
    options = parser.parse_args()

    endpoint = Endpoint(options.gid_index)
    with endpoint.context, open_link(options.role, options.address) as connected:
        link = Link(connected)
        link.tell(json.dumps(endpoint.address()))
        endpoint.connect(json.loads(link.hear()))
        (client if options.role == "client" else server)(endpoint, link, options.rounds)
        print("done", flush=True)


if __name__ == "__main__":
    main()
