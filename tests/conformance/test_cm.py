"""The connection manager, on every path: what librdmacm does on Soft-RoCE, down to events, codes and private data."""

import asyncio
import errno
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ffverbs.libibverbs_enums as e
import ffverbs.librdmacm_enums as ce
from ffverbs import _containers as containers
from ffverbs.cmid import CMID, AddrInfo, CMEvent, CMEventChannel
from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from tests.conformance import cm
from tests.conformance.cm import Ends
from tests.conformance.pair import DEADLINE_S
from tests.conformance.paths import REMOTE, Workers, begin

REJECTED_BY_CONSUMER, NO_SUCH_SERVICE = 28, 8
SIDR_UNSUPPORTED, SIDR_REJECT = 1, 2


@pytest.fixture(params=cm.PATHS)
def ends(request: pytest.FixtureRequest, workers: Workers, node_directory: Path, tmp_path: Path) -> Iterator[Ends]:
    """A server and a client on each path."""
    yield from _ends(request.param, workers, node_directory, tmp_path)


@pytest.fixture(params=[path for path in cm.PATHS if path != "self"])
def apart(request: pytest.FixtureRequest, workers: Workers, node_directory: Path, tmp_path: Path) -> Iterator[Ends]:
    """The same where both sides can wait at once."""
    yield from _ends(request.param, workers, node_directory, tmp_path)


@pytest.fixture
def here(workers: Workers, node_directory: Path, tmp_path: Path) -> Iterator[Ends]:
    """Both sides in this thread: for what does not depend on where they are."""
    yield from _ends("self", workers, node_directory, tmp_path)


@pytest.fixture(params=["processes", "containers", *REMOTE])
def foreign(request: pytest.FixtureRequest, workers: Workers, node_directory: Path, tmp_path: Path) -> Iterator[Ends]:
    """Two sides in processes of their own, with two addresses."""
    yield from _ends(request.param, workers, node_directory, tmp_path)


def _ends(path: str, workers: Workers, node_directory: Path, tmp_path: Path) -> Iterator[Ends]:
    if path == "containers" and (reason := containers.unavailable()):
        pytest.skip(f"containers cannot be made on this host: {reason}")
    folder = node_directory if path == "containers" else tmp_path
    with cm.two_sides(path, node_directory, folder, workers.hosts) as made:
        yield made


def establish(ends: Ends, request: bytes = b"", reply: bytes = b"", **values: int) -> None:
    """Connect the client's `id` to the server's `child`."""
    ends.server.do(cm.listen, ends.address)
    ends.client.do(cm.resolve, ends.address)
    ends.client.do(cm.connect, request, **values)
    assert ends.server.do(cm.next_event, keep="child") == ("CONNECT_REQUEST", 0, request)
    ends.server.do(cm.accept, reply)
    assert ends.client.do(cm.next_event) == ("ESTABLISHED", 0, reply)
    assert ends.server.do(cm.next_event) == ("ESTABLISHED", 0, b"")


# ---- connections ---------------------------------------------------------------------------------------------------


def test_messages_cross_a_connection(ends: Ends) -> None:
    establish(ends, b"hello", b"welcome")
    ends.server.do(cm.post, "child")
    ends.client.do(cm.send, "id", b"over the connection")
    assert ends.server.do(cm.received, "child") == b"over the connection"
    ends.client.do(cm.post, "id")
    ends.server.do(cm.send, "child", b"and back")
    assert ends.client.do(cm.received, "id") == b"and back"


def test_both_sides_agree_on_the_attributes(ends: Ends) -> None:
    ends.server.do(cm.listen, ends.address)
    ends.client.do(cm.resolve, ends.address)
    ends.client.do(cm.connect, resources=3, depth=5, retry=6, rnr_retry=4)
    ends.server.do(cm.next_event, keep="child")
    assert ends.server.do(asked_for) == (5, 3, 6, 4)
    ends.server.do(cm.accept, resources=2, depth=1, retry=1, rnr_retry=2)
    ends.client.do(cm.next_event)
    ends.server.do(cm.next_event)
    access = e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ | e.IBV_ACCESS_REMOTE_ATOMIC
    common = {"retry_cnt": 6, "timeout": 19, "qp_access_flags": int(access)}
    server, client = ends.server.do(cm.attributes, "child"), ends.client.do(cm.attributes, "id")
    assert server == {"max_rd_atomic": 1, "max_dest_rd_atomic": 2, "rnr_retry": 4, **common}
    assert client == {"max_rd_atomic": 2, "max_dest_rd_atomic": 1, "rnr_retry": 2, **common}


def asked_for(kept: cm.Kept) -> Any:
    return kept["asked"]


@pytest.mark.parametrize("first", ["server", "client"])
def test_a_disconnect_is_agreed_on(ends: Ends, first: str) -> None:
    establish(ends)
    one, other = (ends.server, "child"), (ends.client, "id")
    if first == "client":
        one, other = other, one
    one[0].do(cm.disconnect, one[1])
    assert one[0].do(cm.state, one[1]) == e.IBV_QPS_ERR
    assert other[0].do(cm.next_event) == ("DISCONNECTED", 0, b"")
    other[0].do(cm.disconnect, other[1])
    assert [one[0].do(cm.next_event)[0] for _ in range(2)] == ["DISCONNECTED", "TIMEWAIT_EXIT"]
    assert other[0].do(cm.next_event)[0] == "TIMEWAIT_EXIT"
    one[0].do(cm.disconnect, one[1])  # again: nothing to end, and no error


def test_closing_an_id_disconnects_its_peer(ends: Ends) -> None:
    establish(ends)
    ends.client.do(cm.close, "id")
    assert ends.server.do(cm.next_event) == ("DISCONNECTED", 0, b"")
    ends.server.do(cm.disconnect, "child")


def test_a_rejection_carries_data(ends: Ends) -> None:
    ends.server.do(cm.listen, ends.address)
    ends.client.do(cm.resolve, ends.address)
    ends.client.do(cm.connect, b"please")
    ends.server.do(cm.next_event, keep="child")
    ends.server.do(cm.reject, b"no thanks")
    assert ends.client.do(cm.next_event) == ("REJECTED", REJECTED_BY_CONSUMER, b"no thanks")
    assert ends.client.do(cm.state, "id") == e.IBV_QPS_ERR
    assert ends.client.do(cm.error_of, cm.connect) == errno.EINVAL


def test_a_request_that_is_dropped_is_rejected(ends: Ends) -> None:
    ends.server.do(cm.listen, ends.address)
    for how in ("its id is closed", "its event is acknowledged only", "the listener is closed"):
        ends.client.do(cm.resolve, ends.address)
        ends.client.do(cm.connect)
        if how == "its id is closed":
            ends.server.do(cm.next_event, keep="child")
            ends.server.do(cm.close, "child")
        elif how == "its event is acknowledged only":
            ends.server.do(cm.next_event)
        else:
            ends.server.do(cm.wait_readable)
            ends.server.do(cm.close, "listener")
        assert ends.client.do(cm.next_event) == ("REJECTED", REJECTED_BY_CONSUMER, b""), how
        ends.client.do(cm.close, "id")


def test_nobody_listens(ends: Ends) -> None:
    ends.server.do(cm.keep_context)
    ends.client.do(cm.resolve, ends.address)
    ends.client.do(cm.connect)
    assert ends.client.do(cm.next_event) == ("REJECTED", NO_SUCH_SERVICE, b"")


def test_a_bound_id_does_not_listen(ends: Ends) -> None:
    ends.server.do(cm.bind, ends.address)
    ends.client.do(cm.resolve, ends.address)
    ends.client.do(cm.connect)
    assert ends.client.do(cm.next_event) == ("REJECTED", NO_SUCH_SERVICE, b"")


def test_an_unknown_host_is_looked_for_until_the_time_is_over(here: Ends) -> None:
    before = time.monotonic()
    here.client.do(cm.resolve_only, "10.7.9.9", 300)
    assert here.client.do(cm.next_event) == ("ADDR_ERROR", -errno.ETIMEDOUT, b"")
    assert time.monotonic() - before >= 0.3


def test_a_host_that_comes_in_time_is_found(foreign: Ends) -> None:
    foreign.client.do(cm.resolve_only, foreign.address, 20000)
    if not foreign.elsewhere:  # a static registry says where a container is, not whether it runs
        assert foreign.client.do(cm.no_event)
    foreign.server.do(cm.listen, foreign.address)
    assert foreign.client.do(cm.next_event) == ("ADDR_RESOLVED", 0, b"")


def test_requests_beyond_the_backlog_are_rejected(here: Ends) -> None:
    here.server.do(cm.listen, here.address, backlog=2)
    for number in range(3):
        here.client.do(cm.resolve, here.address, name=f"id{number}")
    for number in range(3):
        here.client.do(cm.connect, name=f"id{number}")
    assert here.client.do(cm.next_event) == ("REJECTED", REJECTED_BY_CONSUMER, b"")
    assert [here.server.do(cm.next_event)[0] for _ in range(2)] == ["CONNECT_REQUEST"] * 2


def test_an_external_queue_pair(ends: Ends) -> None:
    ends.server.do(cm.listen, ends.address)
    ends.client.do(cm.resolve, ends.address, qp=False)
    ends.client.do(cm.external_qp, "id")
    ends.client.do(cm.connect_external)
    ends.server.do(cm.next_event, keep="child")
    ends.server.do(cm.accept)
    assert ends.client.do(cm.next_event) == ("CONNECT_RESPONSE", 0, b"")
    ends.client.do(cm.bring_up, "id")
    ends.client.do(cm.establish)
    assert ends.server.do(cm.next_event) == ("ESTABLISHED", 0, b"")
    ends.server.do(cm.post, "child")
    ends.client.do(cm.send_external, b"from outside")
    assert ends.server.do(cm.received, "child") == b"from outside"


# ---- endpoints -----------------------------------------------------------------------------------------------------


def test_synchronous_ids(apart: Ends) -> None:
    apart.server.do(cm.endpoint, apart.address, listening=True)
    finish = begin(apart.server, "do", cm.serve_one, b"the answer")  # type: ignore[arg-type]
    assert apart.client.do(cm.ask_one, apart.address, b"the question") == b"the answer"
    assert finish() == b"the question"


def test_synchronous_ids_are_refused(ends: Ends) -> None:
    ends.server.do(cm.keep_context)
    ends.client.do(cm.endpoint, ends.address)
    assert ends.client.do(cm.error_of, cm.connect, name="ep") == errno.ECONNREFUSED


def test_an_endpoint_of_nowhere(here: Ends) -> None:
    assert here.client.do(cm.error_of, cm.endpoint, "10.7.9.9") == errno.ETIMEDOUT


def check_descriptors(ends: Ends, before: list[int] | None) -> list[int]:
    """Fail if a side has more than before (some of those it has may be about to be closed); return how many."""
    now = [side.do(cm.descriptors) for side in (ends.server, ends.client)]
    deadline = time.monotonic() + DEADLINE_S
    while before and any(new > old for new, old in zip(now, before, strict=True)):
        assert time.monotonic() < deadline, f"descriptors of server and client: {before}, then {now}"
        now = [side.do(cm.descriptors) for side in (ends.server, ends.client)]
    return now


@pytest.mark.timeout(600)
def test_a_thousand_connections_one_after_another(foreign: Ends) -> None:
    foreign.server.do(cm.endpoint, foreign.address, listening=True)
    before = None
    for count in (20, 60) if foreign.elsewhere else (20, 980):
        finish = begin(foreign.server, "do", cm.serve_many, count)  # type: ignore[arg-type]
        assert foreign.client.do(cm.ask_many, foreign.address, count) == count
        assert finish() == count
        before = check_descriptors(foreign, before)


def test_two_hundred_connections_at_once(foreign: Ends) -> None:
    foreign.server.do(cm.listen, foreign.address)
    before = None
    for count in (20, 60, 60) if foreign.elsewhere else (20, 200, 200):
        finish = begin(foreign.server, "do", cm.accept_many, count)  # type: ignore[arg-type]
        assert foreign.client.do(cm.connect_many, foreign.address, count) == count
        assert finish() == count
        before = check_descriptors(foreign, before)


# ---- addresses -----------------------------------------------------------------------------------------------------


def test_two_containers_listen_on_one_port(foreign: Ends) -> None:
    for side in (foreign.server, foreign.client):
        side.do(cm.listen, None)
        assert side.do(cm.error_of, cm.listen, None, name="second") == errno.EADDRINUSE
    foreign.client.do(cm.resolve, foreign.address)
    foreign.client.do(cm.connect, b"to the other")
    assert foreign.server.do(cm.next_event, keep="child") == ("CONNECT_REQUEST", 0, b"to the other")


def test_loop_back_stays_inside(foreign: Ends) -> None:
    foreign.server.do(cm.listen, "127.0.0.1")
    foreign.client.do(cm.keep_context)
    foreign.client.do(cm.resolve, "127.0.0.1")
    foreign.client.do(cm.connect)
    assert foreign.client.do(cm.next_event) == ("REJECTED", NO_SUCH_SERVICE, b"")
    foreign.client.do(cm.close, "id")
    foreign.client.do(cm.resolve, foreign.address)
    foreign.client.do(cm.connect)
    assert foreign.client.do(cm.next_event) == ("REJECTED", NO_SUCH_SERVICE, b"")


@pytest.mark.parametrize(
    ("bound", "asked", "heard"),
    [
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "10.7.0.1", True),
        ("0.0.0.0", "::1", False),
        ("::", "::1", True),
        ("::", "127.0.0.1", True),
        ("::", "10.7.0.1", True),
        ("::1", "::1", True),
        ("::1", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "10.7.0.1", False),
        ("10.7.0.1", "10.7.0.1", True),
        ("10.7.0.1", "127.0.0.1", False),
        ("localhost", "localhost", True),
    ],
)
def test_where_an_address_is_heard(here: Ends, bound: str, asked: str, heard: bool) -> None:
    here.server.do(cm.listen, bound)
    here.client.do(cm.resolve, asked)
    here.client.do(cm.connect)
    if heard:
        assert here.server.do(cm.next_event)[0] == "CONNECT_REQUEST"
    else:
        assert here.client.do(cm.next_event) == ("REJECTED", NO_SUCH_SERVICE, b"")


def test_ports(here: Ends) -> None:
    ports = [here.server.do(cm.listen, here.address, 0, name=f"l{n}") for n in range(50)]
    assert len(set(ports)) == 50
    assert min(ports) >= 1024
    taken = ports[0]
    assert here.server.do(cm.error_of, cm.listen, here.address, taken) == errno.EADDRINUSE
    here.server.do(cm.listen, here.address, taken, ce.RDMA_PS_UDP, name="udp")  # another space has ports of its own
    here.server.do(cm.close, "l0")
    here.server.do(cm.listen, here.address, taken)


def test_reuse_of_an_address(here: Ends) -> None:
    ids = [CMID(creator=CMEventChannel()) for _ in range(2)]
    info = AddrInfo(src=here.address, src_service="7471", flags=ce.RAI_PASSIVE)
    for one in ids:
        one.set_option(ce.RDMA_OPTION_ID, 1, 1, 4)
        one.bind_addr(info)
    ids[0].listen()
    with pytest.raises(PyverbsRDMAError) as caught:
        ids[1].listen()
    assert caught.value.error_code == errno.EADDRINUSE
    ids[0].close()
    ids[1].listen()
    ids[1].close()


def test_options(here: Ends) -> None:
    here.server.do(cm.listen, here.address)
    here.client.do(cm.resolve, here.address, qp=False)
    one = here.client.kept["id"]
    one.set_option(ce.RDMA_OPTION_ID, ce.RDMA_OPTION_ID_ACK_TIMEOUT, 21, 1)
    one.set_option(ce.RDMA_OPTION_ID, 0, 96, 1)
    one.create_qp(cm.qp_attr())
    here.client.do(cm.connect)
    here.server.do(cm.next_event, keep="child")
    here.server.do(cm.accept)
    assert here.client.do(cm.next_event)[0] == "ESTABLISHED"
    attr, _ = one.query_qp(e.IBV_QP_TIMEOUT)
    assert (attr.timeout, attr.ah_attr.traffic_class) == (21, 96)
    assert here.server.kept["child"].query_qp(0)[0].ah_attr.traffic_class == 96
    with pytest.raises(PyverbsRDMAError):
        one.set_option(ce.RDMA_OPTION_ID, 3, 21, 4)
    for unknown in ((0, 9, 1, 1), (1, 3, 1, 1)):
        with pytest.raises(PyverbsUserError):
            one.set_option(*unknown)
    with pytest.raises(OverflowError):
        one.set_option(ce.RDMA_OPTION_ID, 3, 256, 1)


def test_an_address_of_others_cannot_be_bound(here: Ends) -> None:
    assert here.server.do(cm.error_of, cm.listen, "192.0.2.77") == errno.ENODEV


@pytest.mark.parametrize(
    "arguments", [{"dst": "no.such.name.invalid"}, {"dst": "127.0.0.1", "dst_service": "no-such"}, {"src": "1.2.3.4.5"}]
)
def test_names_that_do_not_exist(arguments: dict[str, Any]) -> None:
    with pytest.raises(PyverbsRDMAError) as caught:
        AddrInfo(**arguments)
    # which of them depends on whether there is a name server to ask
    assert caught.value.error_code in (errno.ENOENT, errno.EAGAIN, errno.EINVAL)


def test_names_of_an_id(here: Ends) -> None:
    cm.make_channel(here.client.kept)
    one = here.client.kept["id"] = CMID(creator=here.client.kept["channel"])
    with pytest.raises(PyverbsRDMAError) as caught:
        one.query_addrinfo()
    assert caught.value.error_code == errno.ENODATA
    one.resolve_addrinfo(node="localhost", service="7471", flags=ce.RAI_DNS | ce.RAI_NUMERICHOST)
    assert here.client.do(cm.next_event)[:1] == ("ADDRINFO_ERROR",)
    one.resolve_addrinfo(node="127.0.0.1", service="7471", flags=ce.RAI_DNS)
    assert here.client.do(cm.next_event) == ("ADDRINFO_RESOLVED", 0, b"")
    one.resolve_addr(one.query_addrinfo())
    assert here.client.do(cm.next_event) == ("ADDR_RESOLVED", 0, b"")
    with pytest.raises(PyverbsRDMAError) as caught:
        one.resolve_addrinfo(node="127.0.0.1", flags=ce.RAI_SA)
    assert caught.value.error_code == errno.EOPNOTSUPP


# ---- datagrams -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [ce.RDMA_PS_UDP, ce.RDMA_PS_IPOIB])
def test_datagrams(ends: Ends, space: int) -> None:
    ends.server.do(cm.listen, ends.address, port_space=space)
    ends.client.do(cm.resolve, ends.address, port_space=space)
    ends.client.do(cm.connect, b"q" * 180)
    assert ends.server.do(cm.next_event, keep="child") == ("CONNECT_REQUEST", 0, b"q" * 180)
    ends.server.do(cm.accept, b"a" * 136, port_space=space)
    ends.server.do(cm.post, "child")
    assert ends.client.do(cm.next_event) == ("ESTABLISHED", 0, b"a" * 136)
    ends.client.do(cm.send_ud, "id", b"a datagram")
    assert ends.server.do(cm.received, "child", 40) == b"a datagram"
    ends.server.do(cm.disconnect, "child")


def test_datagrams_are_refused(ends: Ends) -> None:
    ends.server.do(cm.listen, ends.address, port_space=ce.RDMA_PS_UDP)
    ends.client.do(cm.resolve, ends.address, port_space=ce.RDMA_PS_UDP)
    ends.client.do(cm.connect)
    ends.server.do(cm.next_event, keep="child")
    ends.server.do(cm.reject, b"nay")
    assert ends.client.do(cm.next_event) == ("UNREACHABLE", SIDR_REJECT, b"nay")
    ends.client.do(cm.resolve, ends.address, 7472, ce.RDMA_PS_UDP, name="second")
    ends.client.do(cm.connect, name="second")
    assert ends.client.do(cm.next_event) == ("UNREACHABLE", SIDR_UNSUPPORTED, b"")


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize(
    ("group", "gid"),
    [
        ("230.1.2.3", "0000:0000:0000:0000:0000:ffff:e601:0203"),
        ("ff1e::77", "ff1e:0000:0000:0000:0000:0000:0000:0077"),
    ],
)
def test_multicast(apart: Ends, extended: bool, group: str, gid: str) -> None:
    expected = ("MULTICAST_JOIN", 0xFFFFFF, gid)
    for side in (apart.server, apart.client):
        assert side.do(cm.join, group, extended) == expected
    apart.server.do(cm.post, "id")
    apart.client.do(cm.send_ud, "id", b"to all")
    assert apart.server.do(cm.received, "id", 40) == b"to all"
    assert apart.server.do(cm.error_of, cm.leave, "230.9.9.9") == errno.EADDRNOTAVAIL
    apart.server.do(cm.leave, group)
    assert apart.server.do(cm.error_of, cm.leave, group) == errno.EADDRNOTAVAIL


# ---- limits and states ---------------------------------------------------------------------------------------------


def test_private_data_has_limits(here: Ends) -> None:
    for space, request_limit, reply_limit in ((ce.RDMA_PS_TCP, 56, 196), (ce.RDMA_PS_UDP, 180, 136)):
        here.server.do(cm.listen, here.address, port_space=space)
        here.client.do(cm.resolve, here.address, port_space=space)
        assert here.client.do(cm.error_of, cm.connect, b"x" * (request_limit + 1)) == errno.EINVAL
        here.client.do(cm.connect, b"x" * request_limit)
        assert here.server.do(cm.next_event, keep="child") == ("CONNECT_REQUEST", 0, b"x" * request_limit)
        here.server.kept["child"].create_qp(cm.qp_attr(space))
        for length, code in ((reply_limit + 1, errno.EINVAL), (reply_limit, 0)):
            assert here.server.do(cm.error_of, cm.accept_again, b"y" * length) == code
        assert here.client.do(cm.next_event) == ("ESTABLISHED", 0, b"y" * reply_limit)
        here.client.do(cm.close, "id")
        here.server.do(cm.close, "child")
        here.server.do(cm.close, "listener")
        here.server.do(cm.drain)


def test_what_a_state_does_not_allow(here: Ends) -> None:
    one = CMID(creator=CMEventChannel())
    local = AddrInfo(src=here.address, src_service="7471", flags=ce.RAI_PASSIVE)
    with_arguments = (
        lambda: one.connect(cm.param()),
        lambda: one.accept(cm.param()),
        lambda: one.init_qp_attr(e.IBV_QPS_INIT),
        lambda: one.create_qp(cm.qp_attr()),
    )
    for call in (*with_arguments, one.reject, one.disconnect, one.establish, one.resolve_route, one.get_request):
        _refused(call, errno.EINVAL)
    assert (one.qpn, one.context, one.pd, one.port_num) == (None, None, None, 0)
    one.bind_addr(local)
    assert one.context is not None
    assert (one.dev_name, one.port_num) == ("ffv0", 1)
    _refused(lambda: one.bind_addr(local), errno.EINVAL)
    _refused(lambda: one.create_qp(cm.qp_attr(ce.RDMA_PS_UDP)), errno.EINVAL)
    one.listen()
    for call in (one.listen, lambda: one.connect(cm.param()), lambda: one.resolve_addr(AddrInfo(dst=here.address))):
        _refused(call, errno.EINVAL)
    one.close()
    with pytest.raises(PyverbsError, match="closed"):
        one.listen()


def _refused(call: Any, code: int) -> None:
    with pytest.raises(PyverbsRDMAError) as caught:
        call()
    assert caught.value.error_code == code, str(caught.value)


# ---- channels ------------------------------------------------------------------------------------------------------


def test_a_channel_can_be_polled(here: Ends) -> None:
    here.server.do(cm.listen, here.address)
    channel = here.server.kept["channel"]
    poller = select.epoll()
    poller.register(channel.fd, select.EPOLLIN)
    assert poller.poll(0) == []
    os.set_blocking(channel.fd, False)
    _refused(lambda: CMEvent(channel), errno.EAGAIN)
    here.client.do(cm.resolve, here.address, qp=False)
    client = here.client.kept["id"]
    client.create_qp(cm.qp_attr())
    client.connect(cm.param())

    async def wait() -> str:
        ready = asyncio.Event()
        asyncio.get_running_loop().add_reader(channel.fd, ready.set)
        await asyncio.wait_for(ready.wait(), DEADLINE_S)
        asyncio.get_running_loop().remove_reader(channel.fd)
        return str(here.server.do(cm.next_event, keep="child")[0])

    assert asyncio.run(wait()) == "CONNECT_REQUEST"
    assert poller.poll(0) == []
    poller.close()


class _InterruptError(Exception):
    pass


def test_waiting_runs_signal_handlers_and_other_threads(here: Ends) -> None:
    channel = CMEventChannel()

    def interrupt(number: int, frame: object) -> None:
        raise _InterruptError

    before = signal.signal(signal.SIGALRM, interrupt)
    turns = 0
    done = threading.Event()

    def turn() -> None:
        nonlocal turns
        while not done.wait(0.001):
            turns += 1

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(_InterruptError):
            CMEvent(channel)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        done.set()
        thread.join()
    assert turns > 3
    channel.close()


def test_a_synchronous_call_goes_on_after_a_signal_handler(foreign: Ends) -> None:
    foreign.server.do(cm.listen, foreign.address)
    foreign.client.do(cm.endpoint, foreign.address)
    finish = begin(foreign.client, "do", cm.connect_under_signals)  # type: ignore[arg-type]
    foreign.server.do(cm.next_event, keep="child")
    foreign.server.do(cm.accept_later, 1.0)
    assert finish() > 3


def test_closing_a_channel_closes_its_ids(here: Ends) -> None:
    establish(here)
    channel = here.server.kept["channel"]
    event_of_nobody = here.server.kept["child"]
    channel.close()
    with pytest.raises(PyverbsError, match="closed"):
        event_of_nobody.disconnect()


def test_an_unread_event_goes_with_its_id(here: Ends) -> None:
    here.server.do(cm.listen, here.address)
    here.client.do(cm.resolve, here.address)
    here.client.do(cm.connect)
    here.server.do(cm.wait_readable)
    here.server.do(cm.close, "listener")
    assert here.server.do(cm.no_event)


def test_memory_of_an_id_goes_with_it(here: Ends) -> None:
    establish(here)
    one = here.client.kept["id"]
    mr, context, pd = one.reg_write(4096), one.context, one.pd
    one.close()
    uses: list[Callable[[], Any]] = [lambda: mr.buf, lambda: context.cmd_fd, lambda: pd.handle]
    for call in uses:
        with pytest.raises(PyverbsError, match="closed"):
            call()


def test_a_fork_child_disturbs_nobody(ends: Ends) -> None:
    establish(ends)
    assert ends.server.do(cm.fork_and_close) == 0
    assert ends.client.do(cm.fork_and_close) == 0
    ends.server.do(cm.post, "child")
    ends.client.do(cm.send, "id", b"still there")
    assert ends.server.do(cm.received, "child") == b"still there"
    assert ends.server.do(cm.no_event)


def test_a_listener_without_descriptors_serves_later(foreign: Ends) -> None:
    foreign.server.do(cm.listen, foreign.address)
    foreign.server.do(cm.use_up_descriptors)
    foreign.client.do(cm.resolve, foreign.address)
    foreign.client.do(cm.connect)
    before = foreign.server.do(cm.cpu_seconds)
    foreign.server.do(cm.nap, 0.5)
    assert foreign.server.do(cm.cpu_seconds) - before < 0.25, "it asks for connections all the time"
    assert foreign.server.do(cm.no_event)
    foreign.server.do(cm.free_descriptors)
    assert foreign.server.do(cm.next_event, keep="child")[0] == "CONNECT_REQUEST"


# ---- death ---------------------------------------------------------------------------------------------------------


def test_a_killed_peer_is_disconnected(foreign: Ends) -> None:
    establish(foreign)
    foreign.client._end()  # type: ignore[attr-defined]
    foreign.client.broken = True  # type: ignore[attr-defined]
    assert foreign.server.do(cm.next_event) == ("DISCONNECTED", 0, b"")
    foreign.server.do(cm.disconnect, "child")


@pytest.mark.parametrize("when", ["asking", "answered"])
def test_a_peer_that_is_killed_early_is_unreachable(foreign: Ends, when: str) -> None:
    foreign.server.do(cm.listen, foreign.address)
    foreign.client.do(cm.resolve, foreign.address)
    foreign.client.do(cm.connect)
    foreign.server.do(cm.next_event, keep="child")
    if when == "answered":
        foreign.server.do(cm.accept)
    foreign.client._end()  # type: ignore[attr-defined]
    foreign.client.broken = True  # type: ignore[attr-defined]
    assert foreign.server.do(cm.next_event) == ("UNREACHABLE", -errno.ECONNRESET, b"")


def test_a_listener_that_is_killed(foreign: Ends) -> None:
    foreign.server.do(cm.listen, foreign.address)
    foreign.client.do(cm.resolve, foreign.address)
    foreign.client.do(cm.connect)
    foreign.server.do(cm.next_event, keep="child")
    foreign.server._end()  # type: ignore[attr-defined]
    assert foreign.client.do(cm.next_event) == ("UNREACHABLE", -errno.ECONNRESET, b"")
    foreign.server.broken = True  # type: ignore[attr-defined]
    foreign.client.do(cm.resolve, foreign.address, name="again")  # its names are still there
    foreign.client.do(cm.connect, name="again")
    assert foreign.client.do(cm.next_event) == ("REJECTED", NO_SUCH_SERVICE, b"")
