"""The state machine of queue pairs: every transition of every type, with missing, surplus and wrong attributes.

The table is written down from the specification (IBA volume 1, 10.3.1, table 91) and ibv_modify_qp(3) once more, and
not taken from the engine.
"""

from collections.abc import Iterator
from errno import EINVAL, EOPNOTSUPP

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.libibverbs_enums import ibv_qp_attr_mask as m
from ffverbs.pyverbs_error import PyverbsRDMAError
from tests.conformance.pair import RC, UC, UD, Options, Pair, Peer, Recv, Send

RESET, INIT, RTR, RTS = int(e.IBV_QPS_RESET), int(e.IBV_QPS_INIT), int(e.IBV_QPS_RTR), int(e.IBV_QPS_RTS)
SQD, SQE, ERR = int(e.IBV_QPS_SQD), int(e.IBV_QPS_SQE), int(e.IBV_QPS_ERR)
STATES = {RESET: "RESET", INIT: "INIT", RTR: "RTR", RTS: "RTS", SQD: "SQD", SQE: "SQE", ERR: "ERR"}
TYPES = {RC: "RC", UC: "UC", UD: "UD"}

CUR, NOTIFY, ACCESS, PKEY = m.IBV_QP_CUR_STATE, m.IBV_QP_EN_SQD_ASYNC_NOTIFY, m.IBV_QP_ACCESS_FLAGS, m.IBV_QP_PKEY_INDEX
PORT, QKEY, AV, MTU, TIMEOUT = m.IBV_QP_PORT, m.IBV_QP_QKEY, m.IBV_QP_AV, m.IBV_QP_PATH_MTU, m.IBV_QP_TIMEOUT
RETRY, RNR, RQ_PSN, RD = m.IBV_QP_RETRY_CNT, m.IBV_QP_RNR_RETRY, m.IBV_QP_RQ_PSN, m.IBV_QP_MAX_QP_RD_ATOMIC
ALT, TIMER, SQ_PSN, DEST_RD = m.IBV_QP_ALT_PATH, m.IBV_QP_MIN_RNR_TIMER, m.IBV_QP_SQ_PSN, m.IBV_QP_MAX_DEST_RD_ATOMIC
MIG, CAP, DEST, RATE = m.IBV_QP_PATH_MIG_STATE, m.IBV_QP_CAP, m.IBV_QP_DEST_QPN, m.IBV_QP_RATE_LIMIT
ALL = [bit for bit in m if bit.name != "IBV_QP_STATE"]
# Legal, but this device has neither second paths nor packet pacing, nor queue pairs that change their size.
UNSUPPORTED = ALT | MIG | CAP | RATE

# (from, to) -> type -> (required, optional) besides the state itself.
TABLE: dict[tuple[int, int], dict[int, tuple[int, int]]] = {
    (RESET, INIT): {RC: (PKEY | PORT | ACCESS, 0), UC: (PKEY | PORT | ACCESS, 0), UD: (PKEY | PORT | QKEY, 0)},
    (INIT, INIT): {RC: (0, PKEY | PORT | ACCESS), UC: (0, PKEY | PORT | ACCESS), UD: (0, PKEY | PORT | QKEY)},
    (INIT, RTR): {
        RC: (AV | MTU | DEST | RQ_PSN | DEST_RD | TIMER, ALT | ACCESS | PKEY),
        UC: (AV | MTU | DEST | RQ_PSN, ALT | ACCESS | PKEY),
        UD: (0, PKEY | QKEY),
    },
    (RTR, RTS): {
        RC: (TIMEOUT | RETRY | RNR | SQ_PSN | RD, CUR | ALT | ACCESS | TIMER | MIG),
        UC: (SQ_PSN, CUR | ALT | ACCESS | MIG),
        UD: (SQ_PSN, CUR | QKEY),
    },
    (RTS, RTS): {
        RC: (0, CUR | ACCESS | ALT | MIG | TIMER),
        UC: (0, CUR | ACCESS | ALT | MIG),
        UD: (0, CUR | QKEY),
    },
    (RTS, SQD): {RC: (0, NOTIFY), UC: (0, NOTIFY), UD: (0, NOTIFY)},
    (SQD, RTS): {
        RC: (0, CUR | ACCESS | ALT | MIG | TIMER),
        UC: (0, CUR | ACCESS | ALT | MIG),
        UD: (0, CUR | QKEY),
    },
    (SQD, SQD): {
        RC: (0, PORT | AV | TIMEOUT | RETRY | RNR | RD | DEST_RD | ALT | ACCESS | PKEY | TIMER | MIG),
        UC: (0, AV | ALT | ACCESS | PKEY | MIG),
        UD: (0, PKEY | QKEY),
    },
    (SQE, RTS): {UC: (0, CUR | ACCESS), UD: (0, CUR | QKEY)},
}


def rule(qp_type: int, start: int, to: int) -> tuple[int, int] | None:
    """Required and optional attributes; None if there is no such transition."""
    if (start, to) == (RESET, ERR):
        return None
    if to in (RESET, ERR):
        return 0, CUR
    return TABLE.get((start, to), {}).get(qp_type)


class Machine:
    """One queue pair, that can be brought into any state and asked for any transition."""

    def __init__(self, side: Peer, qp_type: int) -> None:
        self.side, self.qp_type = side, qp_type
        self.address = side.create(Options(qp_type))

    def bring_to(self, state: int) -> None:
        self.side.modify(RESET)
        if state in (INIT, RTR, RTS, SQD, SQE):
            self.side.connect(self.address, state=min(state, RTS))
        if state == SQD:
            self.side.modify(SQD)
        if state == ERR:
            self.side.connect(self.address, state=INIT)
            self.side.modify(ERR)
        if state == SQE:
            self.side.post_send(Send(1, pieces=((0, 1, 0xBAD),), to=self.address if self.qp_type == UD else None))
            assert not self.side.sent()[0].ok
        assert self.side.state() == state

    def ask(self, to: int, mask: int, start: int) -> int:
        """Return 0 or the errno; a refused transition must not have changed the state."""
        attr = self.side.attributes(self.address)
        attr.qp_state, attr.cur_qp_state = to, start
        queue_pair = self.side._objects.qps[0]
        try:
            queue_pair.modify(attr, int(mask | m.IBV_QP_STATE))
        except PyverbsRDMAError as error:
            assert int(queue_pair.qp_state) == start
            assert len(str(error)) > 60, f"no explanation: {error}"
            return error.error_code
        assert int(queue_pair.qp_state) == to
        return 0


@pytest.fixture
def side(here: Pair) -> Iterator[Peer]:
    here.create()
    here.a.close()
    yield here.a


def starts() -> list[tuple[int, int]]:
    # A reliable connection does not know the state "send queue error".
    return [(t, s) for t in TYPES for s in STATES if not (t == RC and s == SQE)]


@pytest.mark.parametrize(
    ("qp_type", "start"), starts(), ids=[f"{TYPES[qp_type]}-{STATES[start]}" for qp_type, start in starts()]
)
def test_transitions(side: Peer, qp_type: int, start: int) -> None:
    machine = Machine(side, qp_type)
    for to, to_name in STATES.items():
        found = rule(qp_type, start, to)
        if found is None:
            for mask in (0, PKEY | PORT | ACCESS, *(int(bit) for bit in ALL)):
                machine.bring_to(start)
                assert machine.ask(to, mask, start) == EINVAL, f"{STATES[start]} -> {to_name} with {mask:#x}"
            continue
        required, optional = found
        machine.bring_to(start)
        assert machine.ask(to, required, start) == 0, f"{STATES[start]} -> {to_name}"
        for bit in ALL:
            text = f"{STATES[start]} -> {to_name}: {bit.name}"
            machine.bring_to(start)
            if bit & required:
                assert machine.ask(to, required & ~bit, start) == EINVAL, f"{text} is missing"
            elif not bit & optional:
                assert machine.ask(to, required | bit, start) == EINVAL, f"{text} is too much"
            else:
                code = EOPNOTSUPP if bit & UNSUPPORTED else 0
                assert machine.ask(to, required | bit, start) == code, f"{text} is optional"


def test_errors_name_states_and_attributes(side: Peer) -> None:
    machine = Machine(side, RC)
    assert "RESET to INIT needs attribute PORT" in side.refused_modify(INIT, PKEY | ACCESS)[1]
    assert "cannot go from RESET to RTS" in side.refused_modify(RTS)[1]
    machine.bring_to(RTS)
    assert "does not take attribute DEST_QPN" in side.refused_modify(RTS, DEST)[1]
    assert "is in state RTS, not SQD" in side.refused_modify(RTS, CUR, cur_qp_state=SQD)[1]
    assert side.refused_modify(17)[0] == EINVAL
    assert side.refused_modify(RTS, 1 << 29)[0] == EINVAL


@pytest.mark.parametrize(
    ("state", "mask", "values", "text"),
    [
        (INIT, PKEY | PORT | ACCESS, {"port_num": 2}, "port 2"),
        (INIT, PKEY | PORT | ACCESS, {"port_num": 0}, "port 0"),
        (INIT, PKEY | PORT | ACCESS, {"pkey_index": 1}, "P_Key index 1"),
        (INIT, PKEY | PORT | ACCESS, {"qp_access_flags": 1 << 30}, "access flags"),
    ],
)
def test_wrong_values_on_the_way_to_init(side: Peer, state: int, mask: int, values: dict[str, int], text: str) -> None:
    side.create(Options())
    code, said = side.refused_modify(state, mask, **values)
    assert code == EINVAL
    assert text in said
    assert side.state() == RESET


@pytest.mark.parametrize(
    ("state", "values", "text"),
    [
        (RTR, {"path_mtu": 0}, "MTU 0"),
        (RTR, {"path_mtu": 6}, "MTU 6"),
        (RTR, {"min_rnr_timer": 32}, "min_rnr_timer"),
        (RTR, {"dest_qp_num": 1 << 24}, "24 bits"),
        (RTR, {"max_dest_rd_atomic": 129}, "128"),
        (RTS, {"timeout": 32}, "timeout"),
        (RTS, {"retry_cnt": 8}, "retry_cnt"),
        (RTS, {"rnr_retry": 8}, "rnr_retry"),
        (RTS, {"max_rd_atomic": 129}, "128"),
    ],
)
def test_wrong_values_on_the_way_to_rts(side: Peer, state: int, values: dict[str, int], text: str) -> None:
    address = side.create(Options())
    with pytest.raises(PyverbsRDMAError, match=text) as caught:
        side.connect(address, state=state, **values)
    assert caught.value.error_code == EINVAL
    assert side.state() == state - 1, "the steps before it were taken, this one was not"


@pytest.mark.parametrize("qp_type", TYPES, ids=TYPES.get)
@pytest.mark.parametrize("state", STATES, ids=STATES.get)
def test_what_can_be_posted(side: Peer, qp_type: int, state: int) -> None:
    if (qp_type, state) == (RC, SQE):
        assert rule(RC, SQE, RTS) is None
        return
    machine = Machine(side, qp_type)
    machine.bring_to(state)
    to = machine.address if qp_type == UD else None
    sent, received = side.refused_send(Send(2, to=to))[0], side.refused_recv(Recv(3))[0]
    assert sent == (EINVAL if state in (RESET, INIT, RTR) else 0)
    assert received == (EINVAL if state == RESET else 0)
    if state in (SQE, ERR):
        assert side.sent()[0].status == e.IBV_WC_WR_FLUSH_ERR
    if state == ERR:
        assert side.received()[0].status == e.IBV_WC_WR_FLUSH_ERR
    if state == SQD:
        assert side.poll_now("send") == [], "a drained queue waits"
        side.modify(RTS)
        assert side.sent()[0].ok


def test_a_drained_queue_says_so(pair: Pair) -> None:
    pair.connect()
    pair.a.modify(SQD, NOTIFY, en_sqd_async_notify=1)
    assert pair.a.async_event() == e.IBV_EVENT_SQ_DRAINED
    pair.b.post_recv(Recv(1))
    pair.a.post_send(Send(1))
    assert pair.a.poll_now("send") == []
    pair.a.modify(RTS)
    assert pair.a.sent()[0].ok


def test_what_had_begun_ends_before_the_queue_is_drained(pair: Pair) -> None:
    pair.connect()
    pair.a.post_send(Send(1), Send(2))
    assert pair.a.poll_now("send") == [], "the first waits for a receive"
    pair.a.modify(SQD, NOTIFY, en_sqd_async_notify=1)
    assert pair.a.is_draining()
    pair.b.post_recv(Recv(1), Recv(2))
    assert pair.a.sent()[0].wr_id == 1
    assert pair.a.async_event() == e.IBV_EVENT_SQ_DRAINED
    assert (pair.a.state(), pair.a.is_draining()) == (SQD, False)
    assert pair.a.poll_now("send") == [], "the second had not begun"
    pair.a.modify(RTS)
    assert pair.a.sent()[0].wr_id == 2


def test_a_queue_drains_once_and_not_unasked(here: Pair) -> None:
    here.connect()
    here.a.modify(SQD, NOTIFY, en_sqd_async_notify=1)
    assert here.a.async_event() == e.IBV_EVENT_SQ_DRAINED
    here.a.modify(RTS)
    here.a.modify(SQD)  # without asking for an event
    assert not here.a.is_draining()
    here.a.modify(RTS)
    here.a.modify(SQD, NOTIFY, en_sqd_async_notify=1)
    assert here.a.async_event() == e.IBV_EVENT_SQ_DRAINED
    assert here.a.async_event(timeout_s=0.05) is None


def test_what_fails_while_its_queue_drains_gives_no_event(here: Pair) -> None:
    here.connect(rnr_retry=4, min_rnr_timer=31)  # two seconds
    here.a.post_send(Send(1), Send(2))
    here.a.modify(SQD, NOTIFY, en_sqd_async_notify=1)
    assert [done.status for done in here.a.sent(2)] == [e.IBV_WC_RNR_RETRY_EXC_ERR, e.IBV_WC_WR_FLUSH_ERR]
    assert (here.a.state(), here.a.is_draining()) == (ERR, False)
    assert here.a.async_event(timeout_s=0.05) is None


def test_attributes_are_remembered(side: Peer) -> None:
    address = side.create(Options())
    side.connect(address, timeout=14, retry_cnt=3, rnr_retry=2, min_rnr_timer=9, max_rd_atomic=5, path_mtu=2)
    attr, init = side._objects.qps[0].query(0x1FFFFFF)
    assert (attr.timeout, attr.retry_cnt, attr.rnr_retry, attr.min_rnr_timer) == (14, 3, 2, 9)
    assert (attr.max_rd_atomic, attr.path_mtu, attr.dest_qp_num) == (5, 2, address.qpn)
    assert (attr.qp_state, attr.cur_qp_state) == (RTS, RTS)
    assert attr.ah_attr.dgid == address.gid
    assert init.qp_type == RC
    assert init.max_send_wr == 16
    side.modify(RESET)
    assert side._objects.qps[0].query(0x1FFFFFF)[0].timeout == 0, "a reset forgets them"
