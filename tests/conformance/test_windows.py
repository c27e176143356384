"""Memory windows of both types: bound, used by a peer, closed by their owner or by the peer, and their limits."""

import gc
import sys
import weakref
from errno import EBUSY, EINVAL

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.pyverbs_error import PyverbsRDMAError
from tests.conformance.pair import ALL_ACCESS, Options, Pair, Peer, Recv, Send

WRITE, READ = int(e.IBV_WR_RDMA_WRITE), int(e.IBV_WR_RDMA_READ)
ONE, TWO = int(e.IBV_MW_TYPE_1), int(e.IBV_MW_TYPE_2)
BINDABLE = Options(access=ALL_ACCESS | int(e.IBV_ACCESS_MW_BIND))
REMOTE = int(e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ)
ACCESS_ERROR = int(e.IBV_WC_REM_ACCESS_ERR)
both_types = pytest.mark.parametrize("mw_type", [ONE, TWO], ids=["type 1", "type 2"])


def write(pair: Pair, rkey: int, offset: int, length: int = 8) -> int:
    """Write from `a` through a key of `b` and return the status."""
    pair.a.post_send(Send(1, WRITE, ((0, length),), remote=pair.to_b.addr + offset, rkey=rkey))
    return pair.a.sent()[0].status


@both_types
def test_a_window_opens_a_part(pair: Pair, mw_type: int) -> None:
    pair.connect(BINDABLE)
    rkey = pair.b.bind_window(mw_type, 4096, 100, REMOTE)
    pair.a.write(b"through the window")
    assert write(pair, rkey, 4096 + 82, 18) == 0
    assert pair.b.read(18, 4096 + 82) == b"through the window"
    pair.a.post_send(Send(2, READ, ((512, 18),), remote=pair.to_b.addr + 4096 + 82, rkey=rkey))
    assert pair.a.sent()[0].ok
    assert pair.a.read(18, 512) == b"through the window"


@both_types
@pytest.mark.parametrize(("offset", "length"), [(4095, 8), (4096 + 93, 8), (0, 1), (4096 + 100, 1)])
def test_outside_of_the_window(pair: Pair, mw_type: int, offset: int, length: int) -> None:
    pair.connect(BINDABLE)
    rkey = pair.b.bind_window(mw_type, 4096, 100, REMOTE)
    assert write(pair, rkey, offset, length) == ACCESS_ERROR


@both_types
def test_a_window_has_its_own_access(pair: Pair, mw_type: int) -> None:
    pair.connect(BINDABLE)
    rkey = pair.b.bind_window(mw_type, 0, 4096, int(e.IBV_ACCESS_REMOTE_READ))
    pair.a.post_send(Send(2, READ, ((0, 18),), remote=pair.to_b.addr, rkey=rkey))
    assert pair.a.sent()[0].ok
    assert write(pair, rkey, 0) == ACCESS_ERROR


@both_types
def test_the_key_before_binding_opens_nothing(pair: Pair, mw_type: int) -> None:
    pair.connect(BINDABLE)
    rkey = pair.b.bind_window(mw_type, 0, 64, REMOTE)
    assert write(pair, (rkey & ~0xFF) | ((rkey - 1) & 0xFF), 0) == ACCESS_ERROR


def test_binding_again_changes_the_key_of_type_1(pair: Pair) -> None:
    pair.connect(BINDABLE)
    first = pair.b.bind_window(ONE, 0, 64, REMOTE)
    second = pair.b.bind_window(ONE, 128, 64, REMOTE, which=-1)
    assert first != second
    assert write(pair, second, 128) == 0
    assert write(pair, first, 0) == ACCESS_ERROR


def test_a_length_of_zero_closes_type_1(pair: Pair) -> None:
    pair.connect(BINDABLE)
    pair.b.bind_window(ONE, 0, 64, REMOTE)
    closed = pair.b.bind_window(ONE, 0, 0, REMOTE, which=-1)
    assert write(pair, closed, 0) == ACCESS_ERROR


def test_type_2_must_be_invalidated_before_it_is_bound_again(pair: Pair) -> None:
    pair.connect(BINDABLE)
    pair.b.bind_window(TWO, 0, 64, REMOTE)
    with pytest.raises(PyverbsRDMAError) as caught:
        pair.b.bind_window(TWO, 128, 64, REMOTE, which=-1)
    assert caught.value.error_code == -e.IBV_WC_MW_BIND_ERR


def test_local_invalidation_closes_type_2(pair: Pair) -> None:
    pair.connect(BINDABLE)
    rkey = pair.b.bind_window(TWO, 0, 64, REMOTE)
    assert write(pair, rkey, 0) == 0
    pair.b.post_send(Send(3, int(e.IBV_WR_LOCAL_INV), (), imm=rkey))
    (done,) = pair.b.sent()
    assert (done.status, done.opcode) == (0, e.IBV_WC_LOCAL_INV)
    assert write(pair, rkey, 0) == ACCESS_ERROR


def test_a_send_invalidates_the_peers_window(pair: Pair) -> None:
    pair.connect(BINDABLE)
    rkey = pair.b.bind_window(TWO, 0, 64, REMOTE)
    pair.b.post_recv(Recv(1))
    pair.a.post_send(Send(3, int(e.IBV_WR_SEND_WITH_INV), imm=rkey))
    assert pair.a.sent()[0].ok
    (received,) = pair.b.received()
    assert (received.status, received.flags, received.imm) == (0, e.IBV_WC_WITH_INV, rkey)
    assert write(pair, rkey, 0) == ACCESS_ERROR


def test_invalidating_a_window_that_is_not_there(pair: Pair) -> None:
    pair.connect(BINDABLE)
    pair.b.post_recv(Recv(1))
    pair.a.post_send(Send(3, int(e.IBV_WR_SEND_WITH_INV), imm=pair.to_b.rkey))
    assert pair.a.sent()[0].status == ACCESS_ERROR
    pair.b.wait_state(int(e.IBV_QPS_ERR))


def test_type_2_is_for_the_queue_pair_that_it_was_bound_with(apart: Pair) -> None:
    apart.connect(Options(access=BINDABLE.access, qps=2))
    rkey = apart.b.bind_window(TWO, 0, 64, REMOTE)
    assert write(apart, rkey, 0) == 0
    apart.a.post_send(Send(1, WRITE, ((0, 8),), remote=apart.to_b.addr, rkey=rkey), qp=1)
    assert apart.a.sent()[0].status == ACCESS_ERROR


@both_types
@pytest.mark.parametrize("mistake", ["no right to bind", "no right to write", "outside"])
def test_binds_that_fail(pair: Pair, mw_type: int, mistake: str) -> None:
    access = {"no right to bind": ALL_ACCESS, "no right to write": int(e.IBV_ACCESS_MW_BIND)}
    pair.connect(Options(access=access.get(mistake, BINDABLE.access)))
    length = pair.to_b.length + 1 if mistake == "outside" else 64
    with pytest.raises(PyverbsRDMAError) as caught:
        pair.b.bind_window(mw_type, 0, length, REMOTE)
    assert caught.value.error_code in (-e.IBV_WC_MW_BIND_ERR, EINVAL), "at once, or as a completion"


def test_a_region_with_windows_stays(here: Pair) -> None:
    here.connect(BINDABLE)
    rkey = here.b.bind_window(ONE, 0, 64, REMOTE)
    with pytest.raises(PyverbsRDMAError, match="window") as caught:
        here.b._memory.close()
    assert caught.value.error_code == EBUSY
    assert write(here, rkey, 0) == 0, "nothing changed"
    here.b.free_window()
    here.b._memory.close()


def test_a_region_that_is_collected_goes_with_its_windows(here: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reports.append(str(report.exc_value)))
    here.connect(BINDABLE)
    rkey = here.b.bind_window(ONE, 0, 64, REMOTE)
    domain, region = here.b._objects.pd, weakref.ref(here.b._memory)
    here.b._mr = None
    gc.collect()
    assert len(reports) == 1
    assert "window" in reports[0], "it is said, and the region stays"
    assert write(here, rkey, 0) == 0
    assert domain._lingering == [region()]
    here.b.free_window()
    assert domain._lingering == []
    gc.collect()
    assert region() is None
    assert len(reports) == 1


@both_types
def test_a_freed_window_opens_nothing(pair: Pair, mw_type: int) -> None:
    pair.connect(BINDABLE)
    rkey = pair.b.bind_window(mw_type, 0, 64, REMOTE)
    pair.b.free_window()
    assert write(pair, rkey, 0) == ACCESS_ERROR


def test_types_of_windows(here: Pair) -> None:
    side: Peer = here.create(BINDABLE).a
    from ffverbs.mr import MW

    with pytest.raises(PyverbsRDMAError, match="types are 1 and 2"):
        MW(side._objects.pd, 3)
