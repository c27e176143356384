"""The two sides of a test of the connection manager: steps that a side does with what it keeps by name.

A side may live here, in another thread or process, or in a container with an address of its own; a step is a function
of the module, called there. Steps return plain values.
"""

import contextlib
import gc
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any, cast

import ffverbs.libibverbs_enums as e
import ffverbs.librdmacm_enums as ce
from ffverbs import _containers as containers
from ffverbs.addr import AH
from ffverbs.cmid import CMID, AddrInfo, CMEvent, CMEventChannel, ConnParam, JoinMCAttrEx, UDParam
from ffverbs.cq import CQ
from ffverbs.device import Context
from ffverbs.libibverbs_enums import IBV_QPT_RC, IBV_QPT_UD
from ffverbs.pyverbs_error import PyverbsRDMAError
from ffverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from ffverbs.wr import SGE, SendWR
from tests.conformance.pair import DEADLINE_S
from tests.conformance.paths import REMOTE, HostsElsewhere, _Remote, _Threaded, contain, serve, spawn
from tests.hosts import Hosts

PATHS = ("self", "threads", "processes", "containers", *REMOTE)
_MAIN = "import sys; from tests.conformance.cm import worker_main; worker_main(sys.argv[1])"
Kept = dict[str, Any]


class Side:
    """One end: what it keeps, and its address."""

    def __init__(self) -> None:
        self.kept: Kept = {}

    def begin(self, directory: str, address: str) -> None:
        """Be the container of that address in that node directory."""
        os.environ["FFVERBS_DIR"] = directory
        os.environ["FFVERBS_IP"] = address

    def do(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Do a step."""
        return step(self.kept, *args, **kwargs)

    def end(self) -> None:
        """Close what is kept."""
        close_all(self.kept)
        gc.collect()
        os.environ.pop("FFVERBS_IP", None)


class Ends:
    """A server and a client, and their addresses."""

    def __init__(self, server: Side, client: Side, path: str) -> None:
        self.server, self.client, self.path = server, client, path
        self.elsewhere = path in REMOTE
        self.address = "10.77.1.1" if self.elsewhere else "10.7.0.1"
        other = "10.77.2.1" if self.elsewhere else "10.7.0.2"
        self.client_address = "10.7.0.1" if path in ("self", "threads") else other


def worker_main(address: str) -> None:
    """Be a side in a process of its own: connect to the Unix socket at `address` and obey."""
    serve(Client(address, "AF_UNIX"), cast(Any, Side()))


def check_left(_: Kept, directory: str, address: str, *, with_router: bool) -> None:
    """Sweep the names of a side that a test has killed; fail if anything else is left in the node directory."""
    before = {name: os.environ.get(name) for name in ("FFVERBS_DIR", "FFVERBS_IP")}
    os.environ["FFVERBS_DIR"], os.environ["FFVERBS_IP"] = directory, address
    known = {"server", "client", "router.sock"} if with_router else {"server", "client"}
    deadline = time.monotonic() + DEADLINE_S
    while True:
        with Context(name="ffv0"):
            pass
        left = sorted(set(os.listdir(directory)) - known)
        if not left or not with_router or time.monotonic() > deadline:
            break
        time.sleep(0.01)  # a router closes its proxies when it has seen that nobody needs them
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    assert not left, f"the node directory still holds {left}"


@contextmanager
def two_sides(path: str, node_directory: Path, folder: Path, hosts_of: Callable[[str], Hosts]) -> Iterator[Ends]:
    """Yield the two ends of a path; afterwards nothing of them may be left in the node directories."""
    server, client = Side(), Side()
    hosts = hosts_of(path) if path in REMOTE else None
    directories = [str(hosts.directory(name)) for name in hosts.names] if hosts else [str(node_directory)] * 2
    inside = [containers.SHARED_INSIDE] * 2 if path == "containers" else directories
    if path == "threads":
        client = cast(Side, _Threaded(cast(Any, Side())))
    remotes = _start(path, folder, hosts)
    if remotes:
        server, client = (cast(Side, remote) for remote in remotes)
    ends = Ends(server, client, path)
    server.begin(inside[0], ends.address)
    client.begin(inside[1], ends.client_address)
    try:
        yield ends
        for side in (client, server):
            if not (isinstance(side, _Remote) and side.broken):
                side.end()
    finally:
        for remote in [] if isinstance(hosts, HostsElsewhere) else remotes:
            remote._end()
        if path == "threads":
            cast(Any, client)._end()
    for name, directory, address in zip("ab", directories, (ends.address, ends.client_address), strict=True):
        there = cast(Side, hosts.side(name)) if isinstance(hosts, HostsElsewhere) else Side()
        there.do(check_left, directory, address, with_router=ends.elsewhere)


def _start(path: str, folder: Path, hosts: Hosts | None) -> list[_Remote]:
    """Start the processes of the server and the client, if they are to have their own."""
    if isinstance(hosts, HostsElsewhere):
        return [hosts.side(name) for name in hosts.names]
    if path == "processes" or hosts:
        return [spawn(folder, name, _MAIN) for name in ("server", "client")]
    if path == "containers":
        return [contain(folder, name, _MAIN) for name in ("server", "client")]
    return []


def close_all(kept: Kept) -> None:
    """Close what a side keeps, newest first."""
    for name in reversed(list(kept)):
        thing = kept.pop(name)
        for one in thing if isinstance(thing, list) else [thing]:
            if hasattr(one, "close"):
                one.close()


# ---- steps -----------------------------------------------------------------------------------------------------------


def error_of(kept: Kept, step: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """Return the code of the error that a step raises, 0 if none."""
    try:
        step(kept, *args, **kwargs)
    except PyverbsRDMAError as error:
        return error.error_code
    return 0


def qp_attr(port_space: int = ce.RDMA_PS_TCP, **queues: Any) -> QPInitAttr:
    kind = IBV_QPT_RC if port_space == ce.RDMA_PS_TCP else IBV_QPT_UD
    return QPInitAttr(qp_type=kind, cap=QPCap(max_send_wr=4, max_recv_wr=4), **queues)


def param(data: bytes = b"", **values: int) -> ConnParam:
    made = ConnParam(data_len=len(data), **values)
    made.set_private_data(data)
    return made


def make_channel(kept: Kept) -> None:
    kept["channel"] = CMEventChannel()


def listen(
    kept: Kept,
    address: str | None,
    port: int = 7471,
    port_space: int = ce.RDMA_PS_TCP,
    backlog: int = 0,
    name: str = "listener",
) -> int:
    """Listen asynchronously; return the port."""
    if "channel" not in kept:
        make_channel(kept)
    listener = kept[name] = CMID(creator=kept["channel"], port_space=port_space)
    flags = ce.RAI_PASSIVE
    listener.bind_addr(AddrInfo(src=address, src_service=str(port), port_space=port_space, flags=flags))
    listener.listen(backlog)
    return int.from_bytes(bytes(listener._live().route.addr.src.bytes[2:4]), "big")


def resolve(
    kept: Kept,
    address: str,
    port: int = 7471,
    port_space: int = ce.RDMA_PS_TCP,
    qp: bool = True,
    name: str = "id",
    timeout_s: float = DEADLINE_S,
) -> None:
    """Make an id that is ready to connect."""
    if "channel" not in kept:
        make_channel(kept)
    one = kept[name] = CMID(creator=kept["channel"], port_space=port_space)
    one.resolve_addr(AddrInfo(dst=address, dst_service=str(port), port_space=port_space), int(timeout_s * 1000))
    assert (got := next_event(kept)) == ("ADDR_RESOLVED", 0, b""), got
    one.resolve_route(int(timeout_s * 1000))
    assert (got := next_event(kept)) == ("ROUTE_RESOLVED", 0, b""), got
    if qp:
        one.create_qp(qp_attr(port_space))


def connect(kept: Kept, data: bytes = b"", name: str = "id", **values: int) -> None:
    kept[name].connect(param(data, **values))


def read_event(kept: Kept, deadline_s: float = DEADLINE_S) -> CMEvent:
    """Return the next event of the side's channel, which must come in time."""
    if not select.select([kept["channel"].fd], [], [], deadline_s)[0]:
        raise TimeoutError(f"no event within {deadline_s} s")
    return CMEvent(kept["channel"])


def next_event(kept: Kept, keep: str = "", deadline_s: float = DEADLINE_S) -> tuple[str, int, bytes]:
    """Return name (without RDMA_CM_EVENT_), status and private data of the next event; keep its id under `keep`."""
    event = read_event(kept, deadline_s)
    name, status = event.event_str().removeprefix("RDMA_CM_EVENT_"), int(event._live().status)
    if keep:
        kept[keep] = CMID(creator=event, listen_id=kept["listener"])
        conn = event._live().param.conn
        kept["asked"] = (conn.responder_resources, conn.initiator_depth, conn.retry_count, conn.rnr_retry_count)
    if name in ("ESTABLISHED", "MULTICAST_JOIN"):
        kept["ud"] = UDParam(event)
    event.ack_cm_event()
    return name, status, event.private_data.rstrip(b"\0")


def no_event(kept: Kept) -> bool:
    return not select.select([kept["channel"].fd], [], [], 0)[0]


def accept(kept: Kept, data: bytes = b"", name: str = "child", port_space: int = ce.RDMA_PS_TCP, **values: int) -> None:
    kept[name].create_qp(qp_attr(port_space))
    kept[name].accept(param(data, **values))


def reject(kept: Kept, data: bytes = b"", name: str = "child") -> None:
    kept[name].reject(data)


def disconnect(kept: Kept, name: str) -> None:
    kept[name].disconnect()


def close(kept: Kept, name: str) -> None:
    kept.pop(name).close()


def state(kept: Kept, name: str) -> int:
    return int(kept[name].query_qp(e.IBV_QP_STATE)[0].qp_state)


def attributes(kept: Kept, name: str) -> dict[str, int]:
    attr, _ = kept[name].query_qp(0)
    wanted = ("max_rd_atomic", "max_dest_rd_atomic", "retry_cnt", "rnr_retry", "timeout", "qp_access_flags")
    return {field: int(getattr(attr, field)) for field in wanted}


def send(kept: Kept, name: str, text: bytes) -> None:
    mr = kept[name].reg_msgs(64)
    mr.write(text, len(text))
    kept[name].post_send(mr, length=len(text))
    assert kept[name].get_send_comp().status == e.IBV_WC_SUCCESS


def post(kept: Kept, name: str) -> None:
    kept["mr"] = kept[name].reg_msgs(128)
    kept[name].post_recv(kept["mr"])


def received(kept: Kept, name: str, offset: int = 0) -> bytes:
    wc = kept[name].get_recv_comp()
    assert wc.status == e.IBV_WC_SUCCESS
    kept["wc"] = wc
    return bytes(kept["mr"].read(wc.byte_len - offset, offset))


def send_ud(kept: Kept, name: str, text: bytes) -> None:
    one, ud = kept[name], kept["ud"]
    mr = one.reg_msgs(64)
    mr.write(text, len(text))
    with AH(one.pd, attr=ud.ah_attr) as ah:
        one.post_ud_send(mr, ah, rqpn=ud.qp_num, length=len(text))
        assert one.get_send_comp().status == e.IBV_WC_SUCCESS


def join(kept: Kept, group: str, extended: bool = False, flags: int = 0) -> tuple[str, int, str | None]:
    """Make a datagram id that has joined the group; return the event, the QP number and the GID it told."""
    make_channel(kept)
    one = kept["id"] = CMID(creator=kept["channel"], port_space=ce.RDMA_PS_UDP)
    one.bind_addr(AddrInfo(src=os.environ["FFVERBS_IP"], port_space=ce.RDMA_PS_UDP, flags=ce.RAI_PASSIVE))
    one.create_qp(qp_attr(ce.RDMA_PS_UDP))
    address = AddrInfo(src=group)
    if extended:
        one.join_multicast(mc_attr=JoinMCAttrEx(address, 3, flags))
    else:
        one.join_multicast(address)
    name = next_event(kept)[0]
    return name, kept["ud"].qp_num, kept["ud"].ah_attr.dgid


def leave(kept: Kept, group: str) -> None:
    kept["id"].leave_multicast(AddrInfo(src=group))


def external_qp(kept: Kept, name: str) -> None:
    """Make a queue pair of one's own on the id's context."""
    one = kept[name]
    kept["cq"] = CQ(one.context, 8)
    kept["qp"] = QP(one.pd, qp_attr(scq=kept["cq"], rcq=kept["cq"]), QPAttr())


def bring_up(kept: Kept, name: str) -> None:
    for wanted in (e.IBV_QPS_INIT, e.IBV_QPS_RTR, e.IBV_QPS_RTS):
        kept["qp"].modify(*kept[name].init_qp_attr(wanted))


def descriptors(kept: Kept) -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


# ---- synchronous ids -----------------------------------------------------------------------------------------------


def endpoint(kept: Kept, address: str, port: int = 7471, name: str = "ep", listening: bool = False) -> None:
    """Make a synchronous id: listening, or resolved with a queue pair."""
    if listening:
        info = AddrInfo(src=address, src_service=str(port), port_space=ce.RDMA_PS_TCP, flags=ce.RAI_PASSIVE)
    else:
        info = AddrInfo(dst=address, dst_service=str(port), port_space=ce.RDMA_PS_TCP)
    kept[name] = CMID(creator=info, qp_init_attr=qp_attr())
    if listening:
        kept[name].listen()


def serve_one(kept: Kept, answer: bytes) -> bytes:
    """Take one connection, answer its message, and end with it."""
    with kept["ep"].get_request() as child:
        mr = child.reg_msgs(64)
        child.post_recv(mr)
        child.accept()
        heard = bytes(mr.read(child.get_recv_comp().byte_len, 0))
        mr.write(answer, len(answer))
        child.post_send(mr, length=len(answer))
        child.get_send_comp()
        child.disconnect()
    return heard


def serve_many(kept: Kept, count: int) -> int:
    return sum(serve_one(kept, b"pong") == b"ping" for _ in range(count))


def ask_one(kept: Kept, address: str, text: bytes) -> bytes:
    endpoint(kept, address)
    with kept.pop("ep") as one:
        mr = one.reg_msgs(64)
        one.connect()
        one.post_recv(mr)
        out = one.reg_msgs(64)
        out.write(text, len(text))
        one.post_send(out, length=len(text))
        one.get_send_comp()
        heard = bytes(mr.read(one.get_recv_comp().byte_len, 0))
        one.disconnect()
    return heard


def ask_many(kept: Kept, address: str, count: int) -> int:
    return sum(ask_one(kept, address, b"ping") == b"pong" for _ in range(count))


# ---- many at once --------------------------------------------------------------------------------------------------


def accept_many(kept: Kept, count: int) -> int:
    """Accept `count` connections on the listener, and disconnect them once all are established."""
    children: list[CMID] = []
    done = {"CONNECT_REQUEST": 0, "ESTABLISHED": 0, "DISCONNECTED": 0, "TIMEWAIT_EXIT": 0}
    while done["TIMEWAIT_EXIT"] < count:
        event = read_event(kept)
        name = event.event_str().removeprefix("RDMA_CM_EVENT_")
        done[name] += 1
        if name == "CONNECT_REQUEST":
            child = CMID(creator=event, listen_id=kept["listener"])
            children.append(child)
            child.create_qp(qp_attr())
            child.accept(param())
        event.ack_cm_event()
        if name == "ESTABLISHED" and done[name] == count:
            for child in children:
                child.disconnect()
    for child in children:
        child.close()
    return len(children)


def connect_many(kept: Kept, address: str, count: int) -> int:
    """Hold `count` connections at once, and end when the server does."""
    ids = []
    for number in range(count):
        resolve(kept, address, name=f"id{number}")
        ids.append(kept.pop(f"id{number}"))
    for one in ids:
        one.connect(param())
    by_handle = {one._live(): one for one in ids}
    done = {"ESTABLISHED": 0, "DISCONNECTED": 0, "TIMEWAIT_EXIT": 0}
    while done["TIMEWAIT_EXIT"] < count:
        event = read_event(kept)
        name = event.event_str().removeprefix("RDMA_CM_EVENT_")
        done[name] += 1
        one = by_handle[event._live().id]
        event.ack_cm_event()
        if name == "DISCONNECTED":
            one.disconnect()
    for one in ids:
        one.close()
    return done["ESTABLISHED"]


def keep_context(kept: Kept) -> None:
    kept["context"] = Context(name="ffv0")


def bind(kept: Kept, address: str, port: int = 7471) -> None:
    make_channel(kept)
    kept["bound"] = CMID(creator=kept["channel"])
    kept["bound"].bind_addr(AddrInfo(src=address, src_service=str(port), flags=ce.RAI_PASSIVE))


def resolve_only(kept: Kept, address: str, timeout_ms: int) -> None:
    make_channel(kept)
    kept["id"] = CMID(creator=kept["channel"])
    kept["id"].resolve_addr(AddrInfo(dst=address, dst_service="7471"), timeout_ms)


def wait_readable(kept: Kept) -> None:
    if not select.select([kept["channel"].fd], [], [], DEADLINE_S)[0]:
        raise TimeoutError(f"no event within {DEADLINE_S} s")


def drain(kept: Kept) -> None:
    while not no_event(kept):
        CMEvent(kept["channel"]).close()


def accept_again(kept: Kept, data: bytes) -> None:
    kept["child"].accept(param(data))


def connect_external(kept: Kept) -> None:
    kept["id"].connect(param(qp_num=kept["qp"].qp_num))


def establish(kept: Kept) -> None:
    kept["id"].establish()


def send_external(kept: Kept, text: bytes) -> None:
    mr = kept["id"].reg_msgs(64)
    mr.write(text, len(text))
    kept["qp"].post_send(SendWR(num_sge=1, sg=[SGE(mr.buf, len(text), mr.lkey)]))
    deadline = time.monotonic() + DEADLINE_S
    while not (done := kept["cq"].poll()[1]):
        assert time.monotonic() < deadline
    assert done[0].status == e.IBV_WC_SUCCESS


def connect_under_signals(kept: Kept) -> int:
    """Connect the endpoint while a handler runs again and again; return how often it ran."""
    handled = 0

    def handle(number: int, frame: object) -> None:
        nonlocal handled
        handled += 1

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        kept["ep"].connect()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return handled


def accept_later(kept: Kept, wait_s: float) -> None:
    time.sleep(wait_s)  # the other side is to be interrupted meanwhile
    accept(kept)


def fork_and_close(kept: Kept) -> int:
    """Have a fork child close all that it inherited; return its exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            close_all(kept)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def use_up_descriptors(kept: Kept) -> None:
    """Open files until no more can be: a low limit first, so that they are few."""
    kept["limit"] = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, kept["limit"][1]))
    kept["files"] = []
    with contextlib.suppress(OSError):
        while True:
            kept["files"].append(os.open("/dev/null", os.O_RDONLY))


def free_descriptors(kept: Kept) -> None:
    for file in kept.pop("files"):
        os.close(file)
    resource.setrlimit(resource.RLIMIT_NOFILE, kept.pop("limit"))


def cpu_seconds(kept: Kept) -> float:
    return time.process_time()


def nap(kept: Kept, wait_s: float) -> None:
    time.sleep(wait_s)  # to see what happens meanwhile: nothing
