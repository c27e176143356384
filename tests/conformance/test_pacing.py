"""Rate limits: paced queues take the time that their bytes take at the rate, on every path; others do not notice."""

import errno
import time
from collections.abc import Callable

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.pyverbs_error import PyverbsRDMAError
from ffverbs.qp import QPRateLimitAttr
from tests.conformance.pair import UC, UD, Options, Pair, Recv, Send
from tests.conformance.values import PATIENCE

WRITE, READ = int(e.IBV_WR_RDMA_WRITE), int(e.IBV_WR_RDMA_READ)
# 4000 bytes take 4 ms, or more where sending them without a limit does, too.
KBPS, BYTES, COUNT = round(8000 / PATIENCE), 4000, 8
AT_LEAST_S = (COUNT - 1) * BYTES * 8 / KBPS / 1000
FOR_EVER_KBPS = 1  # 4000 bytes take 32 s


def timed(act: Callable[[], object]) -> float:
    begin = time.monotonic()
    act()
    return time.monotonic() - begin


@pytest.mark.parametrize("opcode", [WRITE, READ])
def test_a_paced_queue_takes_its_time(apart: Pair, opcode: int) -> None:
    apart.connect()
    wrs = [apart.remote(opcode, pieces=((0, BYTES),)) for _ in range(COUNT)]
    apart.a.limit_rate(KBPS, burst=1)

    def act() -> None:
        apart.a.post_send(*wrs)
        assert all(done.ok for done in apart.a.sent(COUNT))

    assert timed(act) >= AT_LEAST_S
    # Unpaced again: far less than the same once more, with all that a busy machine adds.
    apart.a.limit_rate(0)
    assert min(timed(act) for _ in range(5)) < AT_LEAST_S


@pytest.mark.parametrize("qp_type", [UC, UD])
def test_unreliable_types(apart: Pair, qp_type: int) -> None:
    if apart.elsewhere and qp_type == UC:
        pytest.skip("the router fetches ahead of the rate: of connected queue pairs only completions keep to it")
    apart.connect(Options(qp_type=qp_type))
    apart.b.post_recv(*(Recv(i, ((0, BYTES + 40),)) for i in range(COUNT)))
    apart.a.limit_rate(KBPS, burst=1)
    to = apart.to_b if qp_type == UD else None

    def act() -> None:
        apart.a.post_send(*(Send(pieces=((0, BYTES),), to=to) for _ in range(COUNT)))
        assert all(done.ok for done in apart.b.received(COUNT))

    assert timed(act) >= AT_LEAST_S
    assert all(done.ok for done in apart.a.sent(COUNT))


def test_a_burst_goes_at_once(apart: Pair) -> None:
    apart.connect()
    apart.a.limit_rate(FOR_EVER_KBPS, burst=(COUNT - 1) * BYTES)
    apart.a.post_send(*(apart.remote(WRITE, pieces=((0, BYTES),)) for _ in range(COUNT)))
    assert all(done.ok for done in apart.a.sent(COUNT))
    apart.a.post_send(apart.remote(WRITE))
    with pytest.raises(TimeoutError):
        apart.a.poll("send", 1, deadline_s=0.05)


def test_a_burst_may_be_longer_than_the_machine_has_been_up(apart: Pair) -> None:
    apart.connect(Options(length=1 << 20))
    apart.a.limit_rate(FOR_EVER_KBPS, burst=COUNT << 20)  # 19 hours
    apart.a.post_send(*(apart.remote(WRITE, pieces=((0, 1 << 20),)) for _ in range(COUNT)))
    assert all(done.ok for done in apart.a.sent(COUNT))


def test_what_waits_goes_on_when_the_limit_is_lifted(apart: Pair) -> None:
    apart.connect(Options(qps=2))
    apart.a.limit_rate(FOR_EVER_KBPS, burst=1)
    wr = apart.remote(WRITE, pieces=((0, BYTES),))
    apart.a.post_send(wr, wr)
    assert apart.a.sent()[0].ok
    apart.a.post_send(apart.remote(WRITE), qp=1)  # another queue pair is not paced
    done = apart.a.sent()[0]
    assert done.qp_num == apart.to_a.qpns[1]
    apart.a.limit_rate(0)
    assert apart.a.sent()[0].ok
    # And what waits is flushed when its queue pair fails; nothing of the limit is left after a reset.
    apart.a.limit_rate(FOR_EVER_KBPS, burst=1)
    apart.a.post_send(wr, wr)
    assert apart.a.sent()[0].ok
    apart.a.modify(int(e.IBV_QPS_ERR))
    assert apart.a.sent()[0].status == e.IBV_WC_WR_FLUSH_ERR
    apart.a.modify(int(e.IBV_QPS_RESET))
    apart.b.modify(int(e.IBV_QPS_RESET))
    apart.a.connect(apart.to_b)
    apart.b.connect(apart.to_a)
    apart.a.post_send(wr, wr, wr)
    assert all(done.ok for done in apart.a.sent(3))


def test_bad_limits(here: Pair) -> None:
    here.create()
    qp = here.a._objects.qps[0]
    caps = here.a._objects.ctx.query_device_ex().packet_pacing_caps
    assert caps.supported_qpts == sum(1 << kind for kind in (2, 3, 4))

    def code(attr: QPRateLimitAttr) -> int:
        with pytest.raises(PyverbsRDMAError, match="Failed to modify rate limit of QP") as caught:
            qp.modify_rate_limit(attr)
        return caught.value.error_code

    assert code(QPRateLimitAttr(5)) == errno.EINVAL  # RESET
    here.a.connect(here.to_b)
    assert code(QPRateLimitAttr(caps.qp_rate_limit_max + 1)) == errno.EINVAL
    assert code(QPRateLimitAttr(5, comp_mask=1)) == errno.EINVAL
    qp.modify_rate_limit(QPRateLimitAttr(caps.qp_rate_limit_max))
    qp.modify_rate_limit(QPRateLimitAttr(caps.qp_rate_limit_min, 1, 1500))
