"""What a side posts, and what completes."""

import errno
import itertools
import os
import select
import time
from collections.abc import Callable
from typing import Any

import ffverbs.libibverbs_enums as e
from ffverbs._native import lib
from ffverbs._struct import new
from ffverbs.addr import AH, GID, AHAttr, GlobalRoute
from ffverbs.base import check
from ffverbs.cq import CQ, CQEX, PollCqAttr, WcTmInfo
from ffverbs.pyverbs_error import PyverbsRDMAError
from ffverbs.qp import (
    DataBuffer,
    QPEx,
    QPRateLimitAttr,
)
from ffverbs.wr import SGE, RecvWR, SendWR
from tests.conformance.side import Side
from tests.conformance.values import DEADLINE_S, GID_INDEX, Address, Done, Piece, Recv, Send

__all__ = ["Traffic"]

_RDMA_OPCODES = (e.IBV_WR_RDMA_WRITE, e.IBV_WR_RDMA_WRITE_WITH_IMM, e.IBV_WR_RDMA_READ, e.IBV_WR_ATOMIC_WRITE)
# Fields of an extended completion, and how they are read: those that Done has, in its order, and the others.
_DONE_FIELDS = (
    (e.IBV_WC_EX_WITH_BYTE_LEN, "read_byte_len"),
    (e.IBV_WC_EX_WITH_IMM, "read_imm_data"),
    (e.IBV_WC_EX_WITH_QP_NUM, "read_qp_num"),
    (e.IBV_WC_EX_WITH_SRC_QP, "read_src_qp"),
)
_OTHER_FIELDS = (
    (e.IBV_WC_EX_WITH_SLID, "read_slid"),
    (e.IBV_WC_EX_WITH_SL, "read_sl"),
    (e.IBV_WC_EX_WITH_DLID_PATH_BITS, "read_dlid_path_bits"),
    (e.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP, "read_timestamp"),
    (e.IBV_WC_EX_WITH_FLOW_TAG, "read_flow_tag"),
    (e.IBV_WC_EX_WITH_TM_INFO, "read_tm_info"),
    (e.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK, "read_completion_wallclock_ns"),
)


class Traffic(Side):
    """A side that posts and polls."""

    # ---- posting ----------------------------------------------------------------------------------------------

    def _sges(self, pieces: tuple[Piece, ...]) -> list[SGE]:
        mr = self._memory
        return [SGE(mr.buf + piece[0], piece[1], piece[2] if len(piece) > 2 else mr.lkey) for piece in pieces]

    def _send_wr(self, send: Send) -> SendWR:
        # A request without elements is given one and then says that it has none: SendWR wants a list.
        sges = self._sges(send.pieces) or [SGE(0, 0, 0)]
        wr = SendWR(send.wr_id, send.opcode, len(sges), send.imm, sges, send.flags)
        wr.num_sge = len(send.pieces)
        if self._objects.targets:
            wr.set_qp_type_xrc(self._srqn if send.srqn is None else send.srqn)
        if send.to is not None:
            wr.set_wr_ud(self._handle_for(send.to), send.to.qpn, send.qkey)
        elif send.opcode in (e.IBV_WR_ATOMIC_CMP_AND_SWP, e.IBV_WR_ATOMIC_FETCH_AND_ADD):
            wr.set_wr_atomic(send.rkey, send.remote, send.compare_add, send.swap)
        elif send.opcode in _RDMA_OPCODES:
            wr.set_wr_rdma(send.rkey, send.remote)
        return wr

    def post_batch(self, *sends: Send, qp: int = 0) -> int:
        """Post requests as a batch of an extended queue pair: errno of the whole, 0 if it was posted."""
        queue_pair = self._objects.qps[qp]
        assert isinstance(queue_pair, QPEx)
        queue_pair.wr_start()
        for send in sends:
            self._build(queue_pair, send)
        try:
            queue_pair.wr_complete()
        except PyverbsRDMAError as error:
            return error.error_code
        return 0

    def _build(self, qp: QPEx, send: Send) -> None:
        qp.wr_id, qp.wr_flags = send.wr_id, send.flags & ~int(e.IBV_SEND_INLINE)
        begin: dict[int, Callable[[], None]] = {
            int(e.IBV_WR_SEND): qp.wr_send,
            int(e.IBV_WR_SEND_WITH_IMM): lambda: qp.wr_send_imm(send.imm),
            int(e.IBV_WR_SEND_WITH_INV): lambda: qp.wr_send_inv(send.imm),
            int(e.IBV_WR_LOCAL_INV): lambda: qp.wr_local_inv(send.imm),
            int(e.IBV_WR_RDMA_WRITE): lambda: qp.wr_rdma_write(send.rkey, send.remote),
            int(e.IBV_WR_RDMA_WRITE_WITH_IMM): lambda: qp.wr_rdma_write_imm(send.rkey, send.remote, send.imm),
            int(e.IBV_WR_RDMA_READ): lambda: qp.wr_rdma_read(send.rkey, send.remote),
            int(e.IBV_WR_ATOMIC_CMP_AND_SWP): lambda: qp.wr_atomic_cmp_swp(
                send.rkey, send.remote, send.compare_add, send.swap
            ),
            int(e.IBV_WR_ATOMIC_FETCH_AND_ADD): lambda: qp.wr_atomic_fetch_add(
                send.rkey, send.remote, send.compare_add
            ),
            int(e.IBV_WR_ATOMIC_WRITE): lambda: qp.wr_atomic_write(
                send.rkey, send.remote, send.swap.to_bytes(8, "little")
            ),
            int(e.IBV_WR_FLUSH): lambda: qp.wr_flush(send.rkey, send.remote, send.compare_add, 1, send.swap),
        }
        begin[send.opcode]()
        if send.to is not None:
            qp.wr_set_ud_addr(self._handle_for(send.to), send.to.qpn, send.qkey)
        if send.flags & e.IBV_SEND_INLINE:
            buffers = [DataBuffer(sge.addr, sge.length) for sge in self._sges(send.pieces)]
            if len(buffers) == 1:
                qp.wr_set_inline_data(buffers[0]._addr, buffers[0]._length)
            else:
                qp.wr_set_inline_data_list(len(buffers), buffers)
        elif send.opcode not in (e.IBV_WR_ATOMIC_WRITE, e.IBV_WR_FLUSH, e.IBV_WR_LOCAL_INV):
            sges = self._sges(send.pieces)
            if len(sges) == 1:
                qp.wr_set_sge(sges[0])
            else:
                qp.wr_set_sge_list(len(sges), sges)

    def _handle_for(self, to: Address) -> AH:
        o = self._objects
        if (to.gid, to.qpn) not in o.handles:
            route = GlobalRoute(dgid=GID(to.gid), sgid_index=GID_INDEX)
            o.handles[to.gid, to.qpn] = AH(o.pd, attr=AHAttr(port_num=1, is_global=1, gr=route))
        return o.handles[to.gid, to.qpn]

    def _recv_wr(self, recv: Recv) -> RecvWR:
        sges = self._sges(recv.pieces) or [SGE(0, 0, 0)]
        wr = RecvWR(recv.wr_id, len(sges), sges)
        wr.num_sge = len(recv.pieces)
        return wr

    def post_send(self, *sends: Send, qp: int = 0) -> None:
        """Post requests as one list."""
        self._objects.qps[qp].post_send(_chain([self._send_wr(send) for send in sends]))

    def post_recv(self, *recvs: Recv, qp: int = 0) -> None:
        """Post receive requests as one list, to the shared queue if there is one."""
        chain = _chain([self._recv_wr(recv) for recv in recvs])
        (self._objects.srq or self._objects.qps[qp]).post_recv(chain)

    def post_to_queue(self, which: int, *recvs: Recv) -> None:
        """Post receives to one of the work queues of spread()."""
        self._objects.wqs[which].post_recv(_chain([self._recv_wr(recv) for recv in recvs]))

    def refused_modify(self, state: int | None = None, mask: int = 0, qp: int = 0, **values: int) -> tuple[int, str]:
        """Return errno and text of a modify() that is refused; (0, "") if it is not."""
        try:
            self.modify(state, mask, qp, **values)
        except PyverbsRDMAError as error:
            return error.error_code, str(error)
        return 0, ""

    def refused_send(self, *sends: Send, qp: int = 0) -> tuple[int, int]:
        """Post a list that is refused: errno and the wr_id of the first request that was not posted; (0, 0) if none."""
        wrs = [self._send_wr(send) for send in sends]
        bad = SendWR(sg=[SGE(0, 0, 0)], num_sge=1)
        try:
            self._objects.qps[qp].post_send(_chain(wrs), bad)
        except PyverbsRDMAError as error:
            return error.error_code, bad.wr_id
        return 0, 0

    def refused_recv(self, *recvs: Recv, qp: int = 0) -> tuple[int, int]:
        """The same for receive requests."""
        wrs = [self._recv_wr(recv) for recv in recvs]
        bad = RecvWR(0, 1, [SGE(0, 0, 0)])
        try:
            (self._objects.srq or self._objects.qps[qp]).post_recv(_chain(wrs), bad)
        except PyverbsRDMAError as error:
            return error.error_code, bad.wr_id
        return 0, 0

    def write_until_refused(self, send: Send) -> tuple[int, int]:
        """Post the request again and again until it fails: its status, and how many went well before."""
        deadline, count = time.monotonic() + DEADLINE_S, 0
        while time.monotonic() < deadline:
            self.post_send(send)
            status = self.sent()[0].status
            if status:
                return status, count
            count += 1
        return 0, count

    def add_often(self, to: Address, count: int, qp: int) -> None:
        """Add 1 to the first word of `to`, so often."""
        add = Send(1, int(e.IBV_WR_ATOMIC_FETCH_AND_ADD), ((64, 8),), remote=to.addr, rkey=to.rkey, compare_add=1)
        for _ in range(count):
            self.post_send(add, qp=qp)
            assert self.sent()[0].ok

    # ---- completions ------------------------------------------------------------------------------------------

    def _queue(self, which: str) -> CQ | CQEX:
        return self._objects.send_cq if which == "send" else self._objects.recv_cq

    def poll(self, which: str, count: int = 1, deadline_s: float = DEADLINE_S) -> list[Done]:
        """Poll the "send" or "recv" queue until `count` completions came."""
        found: list[Done] = []
        deadline = time.monotonic() + deadline_s
        while len(found) < count:
            polled = self.poll_now(which, count - len(found))
            found += polled
            if not polled:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{len(found)} of {count} completions within {deadline_s} s: {found}")
                os.sched_yield()
        return found

    def sent(self, count: int = 1) -> list[Done]:
        return self.poll("send", count)

    def received(self, count: int = 1) -> list[Done]:
        return self.poll("recv", count)

    def poll_now(self, which: str, count: int = 64) -> list[Done]:
        """What is there now."""
        queue = self._queue(which)
        if isinstance(queue, CQEX):
            return [done for done, _ in self._batch(queue, count)]
        return [Done.of(wc) for wc in queue.poll(count)[1]]

    def poll_fields(self, which: str, count: int = 1) -> list[tuple[Done, dict[str, Any]]]:
        """Poll the extended queue until `count` completions came, each with what its other fields say."""
        found: list[tuple[Done, dict[str, Any]]] = []
        queue, deadline = self._queue(which), time.monotonic() + DEADLINE_S
        assert isinstance(queue, CQEX)
        while len(found) < count:
            found += self._batch(queue, count - len(found))
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(found)} of {count} completions within {DEADLINE_S} s: {found}")
        return found

    def _batch(self, queue: CQEX, count: int) -> list[tuple[Done, dict[str, Any]]]:
        """Poll an extended queue as one batch, of at most `count` completions."""
        asked = self._options.cq_fields or 0
        found: list[tuple[Done, dict[str, Any]]] = []
        rc = queue.start_poll(PollCqAttr())
        while rc == 0:
            numbers = [int(getattr(queue, read)()) if asked & flag else 0 for flag, read in _DONE_FIELDS]
            fields = {}
            for flag, read in _OTHER_FIELDS:
                if asked & flag:
                    value = getattr(queue, read)()
                    fields[read] = (value.tag, value.priv) if isinstance(value, WcTmInfo) else int(value)
            end = (int(queue.wr_id), int(queue.status), int(queue.read_opcode()))
            found.append((Done(*end, *numbers, queue.read_wc_flags()), fields))  # type: ignore[call-arg]
            if len(found) == count:
                break
            rc = queue.poll_next()
        if found:
            queue.end_poll()
        if rc not in (0, errno.ENOENT):
            raise PyverbsRDMAError("cannot poll", rc)
        return found

    def resize(self, which: str, cqe: int) -> int:
        """Resize a completion queue and return what it has then."""
        self._queue(which).resize(cqe)
        return self._queue(which).cqe

    def moderate(self, which: str, count: int, period_us: int) -> None:
        """Hold events back until so many completions, or so long after the first one."""
        attr = new("modify_cq_attr", attr_mask=1)
        attr.moderate.cq_count, attr.moderate.cq_period = count, period_us
        check(lib.ffv_modify_cq(self._queue(which)._live(), attr), "cannot moderate")

    def clock_ns(self) -> int:
        """The device's clock, as the engine tells it."""
        return int(lib.ffv_query_clock_ns(self._objects.ctx._live()))

    def poll_error(self, which: str) -> int:
        """Poll until that fails, and return the errno."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            try:
                self.poll_now(which)
            except PyverbsRDMAError as error:
                return error.error_code
        return 0

    def arm(self, which: str, solicited_only: bool = False) -> None:
        self._queue(which).req_notify(solicited_only)

    def wait_event(self, which: str) -> list[Done]:
        """Sleep until the completion channel has an event of the queue, acknowledge it, and poll what is there."""
        channel, cq = self._objects.channel, self._queue(which)
        assert channel is not None
        channel.get_cq_event(cq)
        cq.ack_events(1)
        return self.poll_now(which)

    def event_waits(self, timeout_s: float = 0.0) -> bool:
        """Whether the channel's descriptor is readable (within the time)."""
        channel = self._objects.channel
        assert channel is not None
        return bool(select.select([channel.fd], [], [], timeout_s)[0])

    def receive_by_events(self, count: int) -> list[int]:
        """Arm, poll, sleep, until `count` receives completed; post each again. Return their wr_ids in order."""
        channel, cq = self._objects.channel, self._objects.recv_cq
        assert channel is not None
        seen: list[int] = []
        while True:
            cq.req_notify()
            done = self.poll_now("recv")
            seen += [d.wr_id for d in done if d.ok]
            assert all(d.ok for d in done), done
            if done:
                self.post_recv(*(Recv(d.wr_id) for d in done))
            if len(seen) >= count:
                return seen
            if not select.select([channel.fd], [], [], DEADLINE_S)[0]:
                late = self.poll_now("recv")
                raise TimeoutError(f"no event within {DEADLINE_S} s; {len(seen)} of {count} seen, then {late}")
            channel.get_cq_event(cq)
            cq.ack_events(1)

    def limit_rate(self, kbps: int, burst: int = 0, qp: int = 0) -> None:
        self._objects.qps[qp].modify_rate_limit(QPRateLimitAttr(kbps, burst))


def _chain(wrs: list[Any]) -> Any:
    for wr, following in itertools.pairwise(wrs):
        wr.next_wr = following
    return wrs[0]
