"""The tests of `ffverbs perf` through the Python API: what an application in Python gets.

The loops post and poll as a careful program would: requests are made once, completions of sends are asked for only as
often as the queue needs them, receives are given back in lists. A checked run has one message under way at a time, and
the ends tell each other over the link when it was found to be right.
"""

import random
import select
import sys
from collections import deque
from collections.abc import Callable
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Final

from ffverbs.cq import CQ, WC, cqe_status_to_str
from ffverbs.libibverbs_enums import (
    IBV_SEND_INLINE,
    IBV_SEND_SIGNALED,
    IBV_WR_ATOMIC_FETCH_AND_ADD,
    IBV_WR_RDMA_READ,
    IBV_WR_RDMA_WRITE,
    IBV_WR_SEND,
)
from ffverbs.pyverbs_error import PyverbsError
from ffverbs.wr import SGE, RecvWR, SendWR

if TYPE_CHECKING:
    from ffverbs._perf import Endpoint, Link

__all__ = ["run"]

DEADLINE_S: Final = 10.0
_IDLE_POLLS: Final = 1 << 14
_BATCH: Final = 16
_OPCODES: Final = {
    "send_lat": IBV_WR_SEND,
    "send_bw": IBV_WR_SEND,
    "write_lat": IBV_WR_RDMA_WRITE,
    "write_bw": IBV_WR_RDMA_WRITE,
    "read_lat": IBV_WR_RDMA_READ,
    "read_bw": IBV_WR_RDMA_READ,
    "atomic_lat": IBV_WR_ATOMIC_FETCH_AND_ADD,
}


def _succeeded(wc: WC) -> WC:
    if wc.status:
        text = cqe_status_to_str(wc.status)
        raise PyverbsError(f"work request {wc.wr_id} of QP {wc.qp_num:#x} ended with status {wc.status} ({text})")
    return wc


def _silence() -> PyverbsError:
    return PyverbsError(f"nothing has happened for {DEADLINE_S:g} s: the peer has died, or was stopped")


class _Completions:
    """Takes completions off one queue: spinning, or asleep on its channel while there is none."""

    def __init__(self, cq: CQ) -> None:
        self._cq = cq
        self._channel = cq.comp_channel
        self._readable = select.poll()
        if self._channel is not None:
            self._readable.register(self._channel.fd, select.POLLIN)
        self.one: Callable[[], WC] = self._one_by_spinning if self._channel is None else self._one_by_event

    def _one_by_spinning(self) -> WC:
        poll = self._cq.poll
        deadline = 0.0
        while True:
            for _ in range(_IDLE_POLLS):
                count, wcs = poll()
                if count:
                    return _succeeded(wcs[0])
            now = monotonic()
            deadline = deadline or now + DEADLINE_S
            if now > deadline:
                raise _silence()

    def _one_by_event(self) -> WC:
        assert self._channel is not None
        armed = False
        while True:
            count, wcs = self._cq.poll()
            if count:
                return _succeeded(wcs[0])
            if not armed:
                # A completion from before this call raises no event, so look once more before sleeping.
                self._cq.req_notify()
                armed = True
                continue
            if not self._readable.poll(DEADLINE_S * 1000):
                raise _silence()
            self._channel.get_cq_event(self._cq)
            self._cq.ack_events(1)
            armed = False

    def some(self, at_most: int) -> int:
        """Wait for at least one completion; return how many of at most this many there were."""
        self.one()
        if at_most == 1:
            return 1
        count, wcs = self._cq.poll(min(at_most - 1, _BATCH))
        for wc in wcs:
            _succeeded(wc)
        return count + 1


class _Loop:
    """One end of a run: its requests, and how many are under way."""

    def __init__(self, endpoint: "Endpoint", link: "Link", is_server: bool) -> None:
        s = self.settings = endpoint.settings
        self.endpoint, self.link, self.is_server = endpoint, link, is_server
        self.qp, self.mr = endpoint.qp, endpoint.mr
        self.sent, self.received = _Completions(endpoint.send_cq), _Completions(endpoint.recv_cq)
        self.depth = 1 if s.check else s.tx_depth
        self.list_length = 1 if s.check else s.post_list
        # A completion also says that the requests before it are done.
        self.period = max(self.depth // 4, 1)
        self.under_way = 0
        self.unsignaled = 0
        self.asked_for: deque[int] = deque()
        self.number = 0
        self._send_lists: dict[int, tuple[SendWR, SendWR]] = {}
        self._refill_after = 1
        self._taken = 0

    def _send_list(self, length: int, signaled: bool) -> SendWR:
        """Make a list of `length` requests of which the last may ask for a completion."""
        s, opcode = self.settings, _OPCODES[self.settings.test]
        sge = SGE(self.endpoint.send_address, s.size_bytes, self.mr.lkey)
        inline = IBV_SEND_INLINE if opcode in (IBV_WR_SEND, IBV_WR_RDMA_WRITE) and s.size_bytes <= s.max_inline else 0
        wr = None
        for place in range(length):
            flags = inline | (IBV_SEND_SIGNALED if signaled and place == 0 else 0)
            wr = SendWR(opcode=opcode, num_sge=1, sg=[sge], send_flags=flags, next_wr=wr)
            if opcode == IBV_WR_ATOMIC_FETCH_AND_ADD:
                wr.set_wr_atomic(self.endpoint.peer.rkey, self.endpoint.remote_recv_address, 1)
            elif opcode != IBV_WR_SEND:
                wr.set_wr_rdma(self.endpoint.peer.rkey, self.endpoint.remote_recv_address)
        assert wr is not None
        return wr

    def _recv_list(self, length: int) -> RecvWR:
        sge = SGE(self.endpoint.recv_address, self.settings.size_bytes, self.mr.lkey)
        wr = None
        for _ in range(length):
            wr = RecvWR(num_sge=1, sg=[sge], next_wr=wr)
        assert wr is not None
        return wr

    def post_receives(self) -> None:
        """Fill the receive queue, and make the list by which it is topped up."""
        depth = 1 if self.settings.check else self.settings.rx_depth
        self.qp.post_recv(self._recv_list(depth))
        self._refill_after = max(depth // 2, 1)
        self._refill = self._recv_list(self._refill_after)

    def top_up(self, taken: int = 1) -> None:
        """Count receives that were taken, and give half a queue of them back when that many were."""
        self._taken += taken
        while self._taken >= self._refill_after:
            self.qp.post_recv(self._refill)
            self._taken -= self._refill_after

    def post(self, count: int = 1, signaled: bool = False) -> None:
        """Post `count` requests once there is room; the last asks for a completion if told to, or if one is due."""
        while self.under_way + count > self.depth:
            self.reap()
        if count not in self._send_lists:
            self._send_lists[count] = self._send_list(count, False), self._send_list(count, True)
        self.unsignaled += count
        self.under_way += count
        signaled = signaled or self.unsignaled >= self.period
        if signaled:
            self.asked_for.append(self.unsignaled)
            self.unsignaled = 0
        self.qp.post_send(self._send_lists[count][signaled])

    def reap(self) -> None:
        """Wait for the oldest completion that was asked for."""
        self.sent.one()
        self.under_way -= self.asked_for.popleft()

    def drain(self) -> None:
        """Wait for every completion that was asked for."""
        while self.asked_for:
            self.reap()

    def fill(self, is_server: bool, length: int) -> None:
        """Write message `self.number` of one end where it is sent from."""
        self.mr.write(_pattern(self.number, is_server, length), length)

    def expect(self, is_server: bool, length: int, offset: int) -> None:
        """Raise unless message `self.number` of one end stands at `offset` of the region."""
        if self.mr.read(length, offset) != _pattern(self.number, is_server, length):
            raise PyverbsError(f"message {self.number} does not hold the bytes that were sent")


def _pattern(number: int, is_server: bool, length: int) -> bytes:
    return random.Random(2 * number + is_server).randbytes(length)


def _send_lat_client(loop: _Loop, count: int) -> list[int]:
    samples, post, one, top_up = [], loop.post, loop.received.one, loop.top_up
    check, size, half = loop.settings.check, loop.settings.size_bytes, loop.settings.half_bytes
    since = perf_counter_ns()
    for _ in range(count):
        if check:
            loop.fill(False, size)
        post()
        one()
        if check:
            loop.expect(True, size, half)
            loop.number += 1
        top_up()
        now = perf_counter_ns()
        samples.append(now - since)
        since = now
    return samples


def _send_lat_server(loop: _Loop, count: int) -> list[int]:
    post, one, top_up = loop.post, loop.received.one, loop.top_up
    check, size, half = loop.settings.check, loop.settings.size_bytes, loop.settings.half_bytes
    for _ in range(count):
        one()
        if check:
            loop.expect(False, size, half)
            loop.fill(True, size)
            loop.number += 1
            top_up()
            post()
        else:
            post()
            top_up()
    return []


def _await_flag(loop: _Loop, flag: bytes) -> None:
    """Wait until the last byte of the receive half is `flag`."""
    read, last = loop.mr.read, loop.settings.half_bytes + loop.settings.size_bytes - 1
    deadline = 0.0
    while True:
        for _ in range(_IDLE_POLLS):
            if read(1, last) == flag:
                return
        now = monotonic()
        deadline = deadline or now + DEADLINE_S
        if now > deadline:
            raise _silence()


def _write_one(loop: _Loop, flag: bytes) -> None:
    last = loop.settings.size_bytes - 1
    if loop.settings.check and last:
        loop.fill(loop.is_server, last)
    loop.mr.write(flag, 1, last)
    loop.post()


def _await_one(loop: _Loop, flag: bytes) -> None:
    _await_flag(loop, flag)
    last = loop.settings.size_bytes - 1
    if loop.settings.check and last:
        loop.expect(not loop.is_server, last, loop.settings.half_bytes)


def _write_lat_client(loop: _Loop, count: int) -> list[int]:
    samples = []
    since = perf_counter_ns()
    for _ in range(count):
        flag = bytes(((loop.number + 1) & 0xFF,))
        _write_one(loop, flag)
        _await_one(loop, flag)
        loop.number += 1
        now = perf_counter_ns()
        samples.append(now - since)
        since = now
    return samples


def _write_lat_server(loop: _Loop, count: int) -> list[int]:
    for _ in range(count):
        flag = bytes(((loop.number + 1) & 0xFF,))
        _await_one(loop, flag)
        _write_one(loop, flag)
        loop.number += 1
    return []


def _fetch_lat_client(loop: _Loop, count: int) -> list[int]:
    """READ and atomics: from posting the request to having its answer."""
    samples, size, check = [], loop.settings.size_bytes, loop.settings.check
    adds = loop.settings.test == "atomic_lat"
    since = perf_counter_ns()
    for _ in range(count):
        if check:
            loop.mr.write(bytes(size), size)
        loop.post(1, True)
        loop.reap()
        if check and adds:
            found = int.from_bytes(loop.mr.read(8, 0), sys.byteorder)
            if found != loop.number:
                raise PyverbsError(f"atomic {loop.number} found {found}")
            loop.number += 1
        elif check:
            loop.expect(True, size, 0)
        now = perf_counter_ns()
        samples.append(now - since)
        since = now
    return samples


def _stream_client(loop: _Loop, count: int) -> list[int]:
    """SEND, WRITE and READ as fast as the queue takes them."""
    post, length, left = loop.post, loop.list_length, count
    while left > length:
        post(length)
        left -= length
    post(left, True)
    loop.drain()
    return []


def _checked_push_client(loop: _Loop, count: int) -> list[int]:
    for _ in range(count):
        loop.fill(False, loop.settings.size_bytes)
        loop.post(1, True)
        loop.drain()
        loop.link.meet()  # it is there
        loop.link.meet()  # it was found to be right
        loop.number += 1
    return []


def _checked_push_server(loop: _Loop, count: int) -> list[int]:
    for _ in range(count):
        if loop.settings.test == "send_bw":
            loop.received.one()
        loop.link.meet()
        loop.expect(False, loop.settings.size_bytes, loop.settings.half_bytes)
        if loop.settings.test == "send_bw":
            loop.top_up()
        loop.number += 1
        loop.link.meet()
    return []


def _checked_read_client(loop: _Loop, count: int) -> list[int]:
    _fetch_lat_client(loop, count)
    return []


def _send_bw_server(loop: _Loop, count: int) -> list[int]:
    while count:
        taken = loop.received.some(min(count, _BATCH))
        loop.top_up(taken)
        count -= taken
    return []


def _nothing(loop: _Loop, count: int) -> list[int]:
    return []


_End = Callable[[_Loop, int], list[int]]
# (client, server) of each test, unchecked and checked.
_ENDS: Final[dict[str, tuple[_End, _End]]] = {
    "send_lat": (_send_lat_client, _send_lat_server),
    "send_bw": (_stream_client, _send_bw_server),
    "write_lat": (_write_lat_client, _write_lat_server),
    "write_bw": (_stream_client, _nothing),
    "read_lat": (_fetch_lat_client, _nothing),
    "read_bw": (_stream_client, _nothing),
    "atomic_lat": (_fetch_lat_client, _nothing),
}
_CHECKED_ENDS: Final[dict[str, tuple[_End, _End]]] = {
    **_ENDS,
    "send_bw": (_checked_push_client, _checked_push_server),
    "write_bw": (_checked_push_client, _checked_push_server),
    "read_bw": (_checked_read_client, _nothing),
}


def run(endpoint: "Endpoint", link: "Link", is_server: bool) -> tuple[int, list[int]]:
    """Run one end; the two ends meet over the link. Returns (elapsed ns, round trips in ns)."""
    settings = endpoint.settings
    loop = _Loop(endpoint, link, is_server)
    if _OPCODES[settings.test] == IBV_WR_SEND:
        loop.post_receives()
    if is_server and settings.test in ("read_lat", "read_bw"):
        # What the client reads is where messages arrive in the other tests.
        endpoint.mr.write(_pattern(0, True, settings.size_bytes), settings.size_bytes, settings.half_bytes)
    end = (_CHECKED_ENDS if settings.check else _ENDS)[settings.test][is_server]
    patient = end is _nothing
    link.meet()
    if settings.warmup:
        end(loop, settings.warmup)
    link.meet(patient)
    start = perf_counter_ns()
    samples = end(loop, settings.iters)
    elapsed_ns = perf_counter_ns() - start
    link.meet(patient)
    return elapsed_ns, samples
