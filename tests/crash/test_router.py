"""A router dies at every fault point of its own, while containers of two hosts talk through it.

Router `b` has the fault; that of host `a` lives through the whole file. When `b` has died, every work request of both
containers has one completion, in order; their queue pairs are in error; who talks within a host does not notice; a
router that starts in the dead one's place serves again; and the survivor keeps nothing of what was.
"""

import contextlib
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.pyverbs_error import PyverbsRDMAError
from tests.conformance import cm
from tests.conformance.between_hosts import Cast, anonymous_bytes, check_end, exchange, held
from tests.conformance.pair import DEADLINE_S, UD, Address, Options, Pair, Peer, Recv, Send
from tests.conformance.paths import spawn
from tests.hosts import Hosts

LENGTH, LARGE = 4 << 20, 1 << 20
SENDS = 12  # of a side and round
GROUP = Address("ff0e:0000:0000:0000:0000:0000:0000:0099", (0xFFFFFF,), 0, 0, 0, 0)
SLACK_BYTES = 8 << 20  # what a router may have grown by after all deaths
ERROR = int(e.IBV_QPS_ERR)


class Stage:
    """Two hosts with two containers each; `pair` is of those that talk between hosts."""

    def __init__(self, folder: Path, hosts: Hosts) -> None:
        self.folder, self.hosts = folder, hosts
        self.containers = Cast(self.hosts, folder)
        self.a, self.b = self.containers("a"), self.containers("b")
        self.near = [Pair(self.containers(host), self.containers(host), "processes").connect() for host in ("a", "b")]
        self.lives()
        self.before = self.settle()
        self.memory = anonymous_bytes(hosts.pid("a"))

    def between(self, options: Options) -> Pair:
        return Pair(self.a, self.b, "tcp").connect(options)

    def lives(self) -> None:
        """Messages pass between containers of both hosts, and within each host."""
        for near in self.near:
            exchange(near)
        deadline = time.monotonic() + DEADLINE_S
        while not self.talks():  # what connects before the survivor has found the new router ends with the old one
            assert time.monotonic() < deadline

    def talks(self) -> bool:
        pair = self.between(Options())
        for peer in (pair.a, pair.b):
            peer.post_recv(Recv(3))
        for peer in (pair.a, pair.b):
            peer.post_send(Send(4))
        statuses = [peer.sent()[0].status for peer in (pair.a, pair.b)]
        if not any(statuses):
            assert all(peer.received()[0].wr_id == 3 for peer in (pair.a, pair.b))
        pair.close()
        return not any(statuses)

    def arm(self, fault: str, more: tuple[str, ...]) -> None:
        """Have a router `b` that will die."""
        self.hosts.stop("b")
        self.hosts.start("b", *more, fault=fault)
        self.hosts.wait("b")

    def replace(self) -> None:
        """See that router `b` has died at its fault point, and start another one."""
        assert self.hosts.ended("b") == -signal.SIGKILL
        self.hosts.start("b")
        self.hosts.wait("b")

    def settle(self) -> tuple[int, int]:
        """Return what the survivor holds when nothing has changed for a moment."""
        seen = held(self.hosts.pid("a"))
        for _ in range(200):
            time.sleep(0.1)
            if (now := held(self.hosts.pid("a"))) == seen:
                return now
            seen = now
        raise AssertionError(f"the survivor does not come to rest: {seen}")

    def check_survivor(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while (now := held(self.hosts.pid("a"))) > self.before or now[1] > self.before[1]:
            assert time.monotonic() < deadline, (now, self.before)
            time.sleep(0.05)
        deadline = time.monotonic() + DEADLINE_S
        while (grown := anonymous_bytes(self.hosts.pid("a")) - self.memory) > SLACK_BYTES:
            assert time.monotonic() < deadline, grown
            time.sleep(0.05)

    def end(self) -> None:
        self.containers.end()
        self.hosts.close()


@pytest.fixture(scope="module", name="stage")
def stage_fixture() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="ffv-") as folder:
        made = Stage(Path(folder), Hosts(Path(folder)))
        try:
            yield made
        finally:
            made.end()


# ---- what containers do ----------------------------------------------------------------------------------------------
# Each is a generator: it comes back when the router has died, and goes on when there is another one.

Scene = Callable[[Stage], Iterator[None]]
Round = Callable[[Pair], None]


def both_ways(pair: Pair) -> list[tuple[Peer, Address]]:
    return [(pair.a, pair.to_b), (pair.b, pair.to_a)]


def small(pair: Pair) -> None:
    """Post small requests of all kinds, both ways."""
    for peer, _ in both_ways(pair):
        peer.post_recv(*(Recv(n, ((0, 512),)) for n in range(4)))
    for peer, to in both_ways(pair):
        opcodes = [e.IBV_WR_SEND, e.IBV_WR_RDMA_WRITE, e.IBV_WR_ATOMIC_FETCH_AND_ADD] * (SENDS // 3)
        pieces = [((1024, 512),), ((2048, 300),), ((64, 8),)] * (SENDS // 3)
        peer.post_send(
            *(Send(n, int(opcodes[n]), pieces[n], remote=to.addr + 4096, rkey=to.rkey) for n in range(SENDS))
        )


def large(opcode: int) -> Round:
    """Return what posts large requests, both ways."""

    def post(pair: Pair) -> None:
        for peer, to in both_ways(pair):
            peer.post_send(
                *(Send(n, opcode, ((0, LARGE),), remote=to.addr + LARGE, rkey=to.rkey) for n in range(SENDS))
            )

    return post


def connected(post: Round) -> Scene:
    """Return what has connected queue pairs post until the router dies, and looks at how that ends."""

    def play(stage: Stage) -> Iterator[None]:
        pair = stage.between(Options(length=LENGTH))
        good = True
        while good:
            post(pair)
            for peer, _ in both_ways(pair):
                done = peer.sent(SENDS)
                check_end(done, SENDS)
                good &= all(d.ok for d in done)
                peer.poll_now("recv")
            good &= stage.hosts.is_running("b")
        for peer, _ in both_ways(pair):
            peer.wait_state(ERROR)
        yield
        pair.close()

    return play


def come_and_go(stage: Stage) -> Iterator[None]:
    """Queue pairs connect, exchange messages and end, again and again."""
    while stage.hosts.is_running("b"):
        pair = stage.between(Options(length=LENGTH))
        small(pair)
        for peer, _ in both_ways(pair):
            check_end(peer.sent(SENDS), SENDS)
        pair.close()
    yield


def stop(stage: Stage) -> Iterator[None]:
    """The router is told to stop while messages wait."""
    pair = stage.between(Options())
    exchange(pair)
    for peer, _ in both_ways(pair):
        peer.post_send(*(Send(n) for n in range(SENDS)))  # which nobody receives
    stage.hosts.signal("b", signal.SIGTERM)
    for peer, _ in both_ways(pair):
        check_end(peer.sent(SENDS), SENDS)
        peer.wait_state(ERROR)
    yield
    pair.close()


def datagrams(to_group: bool) -> Scene:
    """Return what sends datagrams both ways: they may be lost, and whoever sends them sees nothing of it."""

    def play(stage: Stage) -> Iterator[None]:
        pair = stage.between(Options(UD))
        for peer, _ in both_ways(pair):
            if to_group:
                peer.join(GROUP.gid)
        waiting = [0, 0]
        while stage.hosts.is_running("b"):
            send_datagrams(pair, to_group, waiting)
        yield
        deadline = time.monotonic() + DEADLINE_S
        got = [0, 0]
        while not all(got):  # the queue pairs go on when there is a router again
            assert time.monotonic() < deadline, got
            got = [one + more for one, more in zip(got, send_datagrams(pair, to_group, waiting), strict=True)]
        pair.close()

    return play


def send_datagrams(pair: Pair, to_group: bool, waiting: list[int]) -> list[int]:
    """Send some each way, and return how many of the other side's have come to each; `waiting`: each one's receives."""
    got = []
    for which, (peer, to) in enumerate(both_ways(pair)):
        if waiting[which] < 8:
            peer.post_recv(*(Recv(n, ((0, 256),)) for n in range(waiting[which], 8)))
            waiting[which] = 8
        peer.post_send(*(Send(n, pieces=((0, 100),), to=GROUP if to_group else to) for n in range(4)))
        assert all(done.ok for done in peer.sent(4))
    for which, (peer, far) in enumerate(both_ways(pair)):
        done = peer.poll_now("recv")
        assert all(d.ok for d in done), done
        waiting[which] -= len(done)
        got.append(sum(d.src_qp == far.qpn for d in done))
    return got


def conversations(stage: Stage) -> Iterator[None]:
    """Connections of the connection manager are made and ended, in both directions."""
    sides: dict[tuple[str, str], Any] = {}

    def talk(here: str, there: str) -> bool:
        return converse(sides[here, "server"], sides[there, "client"], stage.hosts.container_ip(here))

    with contextlib.ExitStack() as ends:
        for host in ("a", "b"):
            for role in ("server", "client"):
                remote: Any = spawn(stage.folder, f"{host}-{role}", cm._MAIN)
                ends.callback(remote._end)
                remote.begin(str(stage.hosts.directory(host)), stage.hosts.container_ip(host))
                sides[host, role] = remote
            sides[host, "server"].do(cm.listen, stage.hosts.container_ip(host))
        while stage.hosts.is_running("b"):
            talk("a", "b")
            talk("b", "a")
        yield
        deadline = time.monotonic() + DEADLINE_S
        while not (talk("a", "b") and talk("b", "a")):
            assert time.monotonic() < deadline
        for side in sides.values():
            side.end()


OVER = ("REJECTED", "UNREACHABLE", "CONNECT_ERROR", "TIMEWAIT_EXIT")


def converse(server: Any, client: Any, address: str) -> bool:
    """Connect and disconnect, or fail to; whether there was a connection. Each side is told how it ends."""
    deadline, established, child = time.monotonic() + DEADLINE_S, False, False
    try:
        client.do(cm.resolve, address, timeout_s=2.0)
        client.do(cm.connect)
        asking = True
    except PyverbsRDMAError:
        asking = False
    except AssertionError as error:
        assert "ADDR_ERROR" in str(error)
        asking = False
    while asking or child:
        assert time.monotonic() < deadline, "the connection manager waits for ever"
        if not server.do(cm.no_event):
            event = server.do(cm.next_event, keep="" if child else "child")[0]
            child = event not in OVER
            if event == "CONNECT_REQUEST":
                child = server.do(cm.error_of, cm.accept) == 0
            elif event == "DISCONNECTED":
                server.do(cm.error_of, cm.disconnect, "child")
            if not child:
                server.do(cm.close, "child")
        if asking and not client.do(cm.no_event):
            event = client.do(cm.next_event)[0]
            asking = event not in OVER
            if event == "ESTABLISHED":
                established = True
                client.do(cm.error_of, cm.disconnect, "id")
    client.do(cm.close, "id")
    return established


# ---- the points -----------------------------------------------------------------------------------------------------

CUT = ("--fault", "cut=0.05,seed=7")
SCENES: dict[str, tuple[Scene, tuple[str, ...]]] = {
    "connect": (come_and_go, ()),
    "small": (connected(small), ()),
    "writes": (connected(large(int(e.IBV_WR_RDMA_WRITE))), ()),
    "reads": (connected(large(int(e.IBV_WR_RDMA_READ))), ()),
    "cut": (connected(small), CUT),
    "cut writes": (connected(large(int(e.IBV_WR_RDMA_WRITE))), CUT),
    "stop": (stop, ()),
    "datagrams": (datagrams(to_group=False), ()),
    "group": (datagrams(to_group=True), ()),
    "conversations": (conversations, ()),
}
# point: what leads to it, and at which of its passages the router dies
DEATHS = [
    ("wire_channel_made", "connect", 1),
    ("wire_channel_broken", "stop", 1),
    ("wire_link_lost", "cut", 1),
    ("wire_link_lost", "cut writes", 2),
    ("wire_link_found", "cut", 1),
    ("wire_link_resumed", "cut", 1),
    ("wire_link_resumed", "cut writes", 2),
    ("wire_half_sent", "small", 20),
    ("wire_half_sent", "writes", 20),
    ("wire_half_sent", "cut", 40),
    ("wire_request_framed", "small", 5),
    ("wire_request_framed", "writes", 3),
    ("wire_stream_framed", "writes", 1),
    ("wire_stream_framed", "writes", 10),
    ("wire_ack_taken", "small", 4),
    ("wire_result_placed", "reads", 1),
    ("wire_result_placed", "reads", 30),
    ("wire_request_taken", "small", 2),
    ("wire_request_taken", "reads", 2),
    ("wire_request_posted", "small", 3),
    ("wire_body_placed", "writes", 1),
    ("wire_body_placed", "writes", 40),
    ("wire_credit_given", "writes", 2),
    ("wire_read_answered", "reads", 3),
    ("wire_delivered", "small", 3),
    ("wire_delivered", "writes", 2),
    ("wire_proxy_claimed", "datagrams", 1),
    ("wire_speaker_claimed", "group", 1),
    ("wire_speaker_claimed", "conversations", 1),
    ("wire_proxy_bound", "connect", 1),
    ("wire_proxy_bound", "datagrams", 1),
    ("wire_proxy_emptied", "connect", 1),
    ("wire_pair_attached", "connect", 1),
    ("wire_pair_attached", "small", 2),
    ("wire_pair_destroyed", "connect", 1),
    ("wire_datagram_framed", "datagrams", 3),
    ("wire_datagram_posted", "datagrams", 3),
    ("wire_group_framed", "group", 2),
    ("wire_group_taken", "group", 2),
    ("wire_call_begun", "conversations", 1),
    ("wire_call_answered", "conversations", 1),
    ("wire_call_passed", "conversations", 2),
    ("wire_call_over", "conversations", 1),
]
# The same where real devices move large payload, which they do in the lab (tests/lab/rdma_deaths.py).
BY_DEVICES = [
    ("wire_grant_made", "writes", 2),
    ("wire_grant_made", "reads", 2),
    ("wire_grant_placed", "writes", 2),
    ("wire_grant_placed", "reads", 2),
    ("wire_grant_over", "writes", 2),
    ("wire_transfer_begun", "writes", 2),
    ("wire_fetch_begun", "reads", 2),
    ("wire_transfer_done", "writes", 2),
    ("wire_transfer_done", "reads", 2),
    ("wire_transfer_told", "writes", 2),
]
POINTS = {point for point, _, _ in DEATHS + BY_DEVICES}


def die(stage: Stage, point: str, scene: str, count: int) -> None:
    """Have router `b` die there, and look at what becomes of everybody else."""
    play, more = SCENES[scene]
    stage.arm(f"{point}:{count}:kill", more)
    acts = play(stage)
    next(acts)
    stage.replace()
    for _ in acts:
        pass
    stage.lives()
    stage.check_survivor()


@pytest.mark.parametrize(("point", "scene", "count"), DEATHS, ids=["-".join(map(str, death)) for death in DEATHS])
def test_death(point: str, scene: str, count: int, stage: Stage) -> None:
    die(stage, point, scene, count)
