"""One end of a stream at an offered load: what offered.py starts, once for each end.

python -m benchmarks.offered_end ffverbs|tcp send|receive --meeting PATH [--address A] [--gbit-per-s X] [--seconds S]

Messages of 1 MiB; the sender keeps to its pace by sleeping, and nobody spins. Each begins with its number, which the
receiver checks. Prints one JSON object: bytes, wall_ns and cpu_ns of this end, from the first message on.
"""

import argparse
import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.resources import Node
from ffverbs.cq import CQ, CompChannel
from ffverbs.libibverbs_enums import IBV_ACCESS_LOCAL_WRITE, IBV_QPT_RC, IBV_WC_SUCCESS, IBV_WR_SEND
from ffverbs.mr import MR
from ffverbs.qp import QP, QPCap, QPInitAttr
from ffverbs.wr import SGE, RecvWR, SendWR

MESSAGE_BYTES: Final = 1 << 20
SLOTS: Final = 16
STAMP_BYTES: Final = 8
END: Final = (1 << 64) - 1  # the number of the last message
START_S: Final = 60


class Meter:
    """What this end has moved and used since the first message."""

    def __init__(self) -> None:
        self.messages = 0
        self._wall_ns = self._cpu_ns = 0

    def count(self) -> None:
        """A message has been moved; the first one starts the clocks."""
        if not self.messages:
            self._wall_ns, self._cpu_ns = time.perf_counter_ns(), time.process_time_ns()
        self.messages += 1

    def report(self) -> None:
        """Print what was found; the first message is not counted."""
        found = {
            "bytes": (self.messages - 1) * MESSAGE_BYTES,
            "wall_ns": time.perf_counter_ns() - self._wall_ns,
            "cpu_ns": time.process_time_ns() - self._cpu_ns,
        }
        print(json.dumps(found))


@contextmanager
def _meet(path: Path, first: bool) -> Iterator[socket.socket]:
    """A connection between the two ends, by a path: it works between network namespaces too."""
    with socket.socket(socket.AF_UNIX) as found:
        if first:
            found.bind(str(path))
            found.listen(1)
            connection, _ = found.accept()
            with connection:
                yield connection
            return
        end = time.monotonic() + START_S
        while True:
            try:
                found.connect(str(path))
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
        yield found


class Verbs:
    """A queue pair, SLOTS messages of memory, and events instead of spinning."""

    def __init__(self, meeting: socket.socket) -> None:
        self.node = Node(16)
        self.channel = CompChannel(self.node.context)
        self.cq = CQ(self.node.context, 4 * SLOTS, None, self.channel)
        cap = QPCap(2 * SLOTS, 2 * SLOTS, 1, 1, 0)
        self.qp = QP(self.node.pd, QPInitAttr(qp_type=IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=cap))
        self.mr = MR(self.node.pd, SLOTS * MESSAGE_BYTES, IBV_ACCESS_LOCAL_WRITE)
        self._meeting = meeting

    def connect(self, receives: Sequence[RecvWR] = ()) -> None:
        """Connect to the other end, who does the same; both have posted their receives when this returns."""
        self._meeting.sendall(json.dumps([self.node.gid, self.qp.qp_num]).encode())
        gid, qp_num = json.loads(self._meeting.recv(4096))
        self.node.connect(self.qp, gid, qp_num)
        for request in receives:
            self.qp.post_recv(request)
        self._meeting.sendall(b"!")
        self._meeting.recv(1)

    def sge(self, slot: int) -> SGE:
        """Return the memory of a slot."""
        return SGE(self.mr.buf + slot * MESSAGE_BYTES, MESSAGE_BYTES, self.mr.lkey)

    def completions(self) -> list[Any]:
        """Return what there is, asleep until there is something."""
        while True:
            count, found = self.cq.poll(SLOTS)
            if not count:
                self.cq.req_notify()
                count, found = self.cq.poll(SLOTS)
            if count:
                if any(wc.status != IBV_WC_SUCCESS for wc in found):
                    raise SystemExit(f"a completion with status {found[0].status}")
                return found
            self.channel.get_cq_event(self.cq)
            self.cq.ack_events(1)


def _send_verbs(meeting: socket.socket, numbers: Iterator[int], meter: Meter) -> None:
    verbs = Verbs(meeting)
    requests = [SendWR(slot, IBV_WR_SEND, 1, 0, [verbs.sge(slot)]) for slot in range(SLOTS)]
    verbs.connect()
    free = list(range(SLOTS))
    for number in numbers:
        while not free:
            free += [int(wc.wr_id) for wc in verbs.completions()]
        slot = free.pop()
        verbs.mr.write(number.to_bytes(STAMP_BYTES, "little"), STAMP_BYTES, slot * MESSAGE_BYTES)
        verbs.qp.post_send(requests[slot])
        meter.count()
    while len(free) < SLOTS:
        free += [int(wc.wr_id) for wc in verbs.completions()]


def _receive_verbs(meeting: socket.socket, check: Callable[[bytes], bool], meter: Meter) -> None:
    verbs = Verbs(meeting)
    requests = [RecvWR(slot, 1, [verbs.sge(slot)]) for slot in range(SLOTS)]
    verbs.connect(requests)
    while True:
        for wc in verbs.completions():
            meter.count()
            if check(verbs.mr.read(STAMP_BYTES, int(wc.wr_id) * MESSAGE_BYTES)):
                return
            verbs.qp.post_recv(requests[int(wc.wr_id)])


def _send_tcp(meeting: socket.socket, address: str, numbers: Iterator[int], meter: Meter) -> None:
    port = int(meeting.recv(64))
    message = bytearray(MESSAGE_BYTES)
    with socket.create_connection((address, port), START_S) as connection:
        for number in numbers:
            message[:STAMP_BYTES] = number.to_bytes(STAMP_BYTES, "little")
            connection.sendall(message)
            meter.count()


def _receive_tcp(meeting: socket.socket, check: Callable[[bytes], bool], meter: Meter) -> None:
    message = memoryview(bytearray(MESSAGE_BYTES))
    with socket.create_server(("0.0.0.0", 0)) as server:
        meeting.sendall(str(server.getsockname()[1]).encode())
        connection, _ = server.accept()
        with connection:
            while True:
                if connection.recv_into(message, MESSAGE_BYTES, socket.MSG_WAITALL) != MESSAGE_BYTES:
                    raise SystemExit("the stream ended in the middle")
                meter.count()
                if check(bytes(message[:STAMP_BYTES])):
                    return


def _paced(gbit_per_s: float, seconds: float) -> Iterator[int]:
    """Yield the numbers of messages, each when its time has come; END is the last."""
    interval_s = MESSAGE_BYTES * 8 / (gbit_per_s * 1e9)
    began = time.perf_counter()
    for number in range(max(2, round(seconds / interval_s))):
        wait_s = began + number * interval_s - time.perf_counter()
        if wait_s > 0:
            time.sleep(wait_s)
        yield number
    yield END


class _Order:
    """What has come is what was sent, in its order."""

    def __init__(self) -> None:
        self._next = 0

    def is_last(self, stamp: bytes) -> bool:
        number = int.from_bytes(stamp, "little")
        if number == END:
            return True
        if number != self._next:
            raise SystemExit(f"message {number} came in place of {self._next}")
        self._next += 1
        return False


def main() -> None:
    """Be one end; see --help."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offered_end", description=__doc__)
    parser.add_argument("transport", choices=("ffverbs", "tcp"))
    parser.add_argument("role", choices=("send", "receive"))
    parser.add_argument("--meeting", type=Path, required=True, help="path of a Unix socket")
    parser.add_argument("--address", default="127.0.0.1", help="of the receiver")
    parser.add_argument("--gbit-per-s", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    meter, order = Meter(), _Order()
    with _meet(args.meeting, args.role == "receive") as meeting:
        if args.role == "send":
            numbers = _paced(args.gbit_per_s, args.seconds)
            if args.transport == "tcp":
                _send_tcp(meeting, args.address, numbers, meter)
            else:
                _send_verbs(meeting, numbers, meter)
        elif args.transport == "tcp":
            _receive_tcp(meeting, order.is_last, meter)
        else:
            _receive_verbs(meeting, order.is_last, meter)
        meter.report()
        meeting.sendall(b"!")
        meeting.recv(1)


if __name__ == "__main__":
    main()
