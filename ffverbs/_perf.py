"""One measurement, from settings to numbers: what `ffverbs perf`, the demo and the benchmarks share.

Two ends, each with a device context of its own, tell each other over a stream socket where they are (`Link`), connect
an RC queue pair, and run one loop: `_perf_c` calls the engine's own (in C), `_perf_python` the same tests through the
Python API. The client decides every setting; the server takes them over.
"""

import dataclasses
import json
import math
import select
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from ffverbs.addr import GID, AHAttr, GlobalRoute
from ffverbs.cq import CQ, CompChannel
from ffverbs.device import Context, get_device_list
from ffverbs.libibverbs_enums import (
    IBV_ACCESS_LOCAL_WRITE,
    IBV_ACCESS_REMOTE_ATOMIC,
    IBV_ACCESS_REMOTE_READ,
    IBV_ACCESS_REMOTE_WRITE,
    IBV_MTU_4096,
    IBV_QPT_RC,
)
from ffverbs.mr import MR
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsError
from ffverbs.qp import QP, QPAttr, QPCap, QPInitAttr

__all__ = ["TESTS", "Endpoint", "Link", "PerfError", "Report", "Settings", "run_client", "run_server"]

PROTOCOL: Final = 1
_PAGE: Final = 4096
_LINE: Final = 64
_MAX_PLACES: Final = 64
_MAX_CHECKED_HALF: Final = 256 << 20
# An end waits this long for the other's word before it gives the measurement up.
LINK_DEADLINE_S: Final = 60.0
_CONTROL_REQUESTS: Final = 8
_FAILURE: Final = b'{"kind": "error"'


class PerfError(PyverbsError):
    """A measurement cannot be made as asked, or its peer failed."""


@dataclass(frozen=True)
class Test:
    """What a test is: its number in `enum ffv_perf_test` and perftest's defaults for it."""

    number: int
    is_latency: bool
    one_way: bool
    size_bytes: int
    iters: int
    tx_depth: int
    rx_depth: int
    max_inline: int


# Sizes, iteration counts and inline limits: perftest 4.5. Its latency tests have a depth of 1; ours need not ask for a
# completion of every message, so they have room to save them.
TESTS: Final[dict[str, Test]] = {
    "send_lat": Test(0, True, True, 2, 1000, 64, 512, 236),
    "send_bw": Test(1, False, True, 65536, 1000, 128, 512, 0),
    "write_lat": Test(2, True, True, 2, 1000, 64, 1, 220),
    "write_bw": Test(3, False, True, 65536, 5000, 128, 1, 0),
    "read_lat": Test(4, True, False, 2, 1000, 1, 1, 0),
    "read_bw": Test(5, False, False, 65536, 1000, 128, 1, 0),
    "atomic_lat": Test(6, True, False, 8, 1000, 1, 1, 0),
}


@dataclass(frozen=True)
class Settings:
    """One measurement. `size_bytes` is of a message; `warmup` iterations are run before the `iters` that are timed."""

    test: str
    size_bytes: int
    iters: int
    warmup: int
    tx_depth: int
    rx_depth: int
    post_list: int
    max_inline: int
    loop: str = "c"
    events: bool = False
    check: bool = False

    @classmethod
    def of(cls, test: str, **given: Any) -> Self:
        """Return the settings of `test` with perftest's defaults for what is not given (or None)."""
        if test not in TESTS:
            raise PerfError(f"there is no test {test!r}: choose one of {', '.join(TESTS)}")
        default = TESTS[test]
        chosen = {name: value for name, value in given.items() if value is not None}
        iters = chosen.get("iters", default.iters)
        post_list = chosen.get("post_list", 1)
        values = {
            "size_bytes": default.size_bytes,
            "warmup": min(iters, 1000),
            "tx_depth": max(default.tx_depth, post_list),
            "rx_depth": default.rx_depth,
            "max_inline": default.max_inline,
            "iters": iters,
            "post_list": post_list,
        }
        settings = cls(test=test, **{**values, **chosen})
        settings._validate()
        return settings

    def _validate(self) -> None:
        for name in ("size_bytes", "iters", "tx_depth", "rx_depth", "post_list"):
            if getattr(self, name) < 1:
                raise PerfError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.warmup < 0:
            raise PerfError(f"warmup is {self.warmup}: it must not be negative")
        if self.size_bytes > 1 << 31:
            raise PerfError(f"size_bytes is {self.size_bytes}: a message has at most {1 << 31}")
        if self.post_list > self.tx_depth:
            raise PerfError(f"lists of {self.post_list} requests do not fit into a send queue of {self.tx_depth}")
        if self.test == "atomic_lat" and self.size_bytes != 8:
            raise PerfError(f"atomic_lat: an atomic has 8 bytes, not {self.size_bytes}")
        if self.test == "write_lat" and self.events:
            raise PerfError("write_lat: a write raises no event at the far end: run it without --events")
        if self.loop not in ("c", "python"):
            raise PerfError(f"there is no loop {self.loop!r}: choose c or python")

    @property
    def half_bytes(self) -> int:
        """Bytes of each half of the region; a checked run has a place for every message in flight."""
        stride = -(-self.size_bytes // _LINE) * _LINE
        places = min(max(self.tx_depth, self.rx_depth), _MAX_PLACES) if self.check else 1
        wanted = max(min(stride * places, _MAX_CHECKED_HALF), stride)
        return -(-wanted // _PAGE) * _PAGE


class Link:
    """The socket between the two ends: one JSON object a line, in both directions."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(LINK_DEADLINE_S)
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._lines = connected.makefile("rb")

    def send(self, kind: str, **body: Any) -> None:
        """Send a message of `kind`."""
        self._socket.sendall(json.dumps({"kind": kind, **body}).encode() + b"\n")

    def receive(self, kind: str) -> dict[str, Any]:
        """Wait for the peer's next message, which must be of `kind`; PerfError when it failed or is gone."""
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise PerfError(f"the peer did not say anything for {LINK_DEADLINE_S:g} s: is it stopped?") from None
        if not line:
            raise PerfError("the peer has ended the connection: look at its output")
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise PerfError(f"the peer does not speak this protocol: {line[:60]!r}")
        if message.get("kind") == "error":
            raise PerfError(f"the peer failed: {message.get('text')}")
        if message.get("kind") != kind:
            raise PerfError(f"the peer said {message.get('kind')!r} where {kind!r} was due: is it of another version?")
        return message

    def meet(self, patient: bool = False) -> None:
        """Wait until the peer is here, too; a patient end waits for as long as the peer lives."""
        self.send("meet")
        self._socket.settimeout(None if patient else LINK_DEADLINE_S)
        self.receive("meet")

    def fileno(self) -> int:
        """Return the socket's descriptor, to wait for the peer's word."""
        return self._socket.fileno()

    def peer_has_failed(self) -> bool:
        """Look, without waiting, whether the peer has ended the connection or says that it failed."""
        if not select.select([self._socket], [], [], 0)[0]:
            return False
        try:
            return self._socket.recv(len(_FAILURE), socket.MSG_PEEK) in (b"", _FAILURE)
        except OSError:
            return True

    def close(self) -> None:
        """Close the socket."""
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is not None and not isinstance(value, OSError):
            # If the peer is gone, what failed here is still the news.
            with suppress(OSError):
                self.send("error", text=str(value))
        self.close()


@dataclass(frozen=True)
class _Address:
    gid: str
    qp_num: int
    addr: int
    rkey: int


class Endpoint:
    """The verbs objects of one end. The region is two halves: [send | receive]."""

    def __init__(self, settings: Settings, device: str | None, gid_index: int) -> None:
        self.settings = settings
        self._gid_index = gid_index
        self._stack = ExitStack()
        try:
            self._open(device)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, device: str | None) -> None:
        s = self.settings
        name = device or get_device_list()[0].name.decode()
        self.context = self._stack.enter_context(Context(name=name))
        self.pd = PD(self.context)
        self.channel = CompChannel(self.context) if s.events else None
        # get_cq_event() of the Python API expects the events of one queue; the loop in C sorts them itself.
        send_channel = CompChannel(self.context) if s.events and s.loop == "python" else self.channel
        # Room for every request at once: what a queue pair can hold never overruns its completion queue.
        self.send_cq = CQ(self.context, s.tx_depth + _CONTROL_REQUESTS, None, send_channel, 0)
        self.recv_cq = CQ(self.context, s.rx_depth + _CONTROL_REQUESTS, None, self.channel, 0)
        cap = QPCap(max_send_wr=s.tx_depth, max_recv_wr=s.rx_depth, max_inline_data=s.max_inline)
        init = QPInitAttr(qp_type=IBV_QPT_RC, scq=self.send_cq, rcq=self.recv_cq, cap=cap, sq_sig_all=0)
        self.qp = QP(self.pd, init)
        access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC
        self.mr = MR(self.pd, 2 * s.half_bytes, access)
        self.peer = _Address("", 0, 0, 0)

    def connect(self, link: Link) -> None:
        """Exchange addresses and bring the queue pair to RTS; both ends are there when this returns."""
        gid = self.context.query_gid(1, self._gid_index)
        link.send("address", **dataclasses.asdict(_Address(str(gid), self.qp.qp_num, self.mr.buf, self.mr.rkey)))
        said = link.receive("address")
        self.peer = _Address(said["gid"], said["qp_num"], said["addr"], said["rkey"])
        limits = self.context.query_device()
        attr = QPAttr(port_num=1)
        attr.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC
        attr.path_mtu = IBV_MTU_4096
        attr.dest_qp_num = self.peer.qp_num
        attr.max_dest_rd_atomic = min(limits.max_qp_rd_atom, 255)
        attr.max_rd_atomic = min(limits.max_qp_init_rd_atom, 255)
        attr.min_rnr_timer = 1
        attr.timeout = 14
        attr.retry_cnt = 7
        attr.rnr_retry = 7
        route = GlobalRoute(dgid=GID(self.peer.gid), sgid_index=self._gid_index)
        attr.ah_attr = AHAttr(port_num=1, is_global=1, gr=route)
        self.qp.to_rts(attr)
        link.meet()

    @property
    def send_address(self) -> int:
        """Address of the half that messages are sent from."""
        return int(self.mr.buf)

    @property
    def recv_address(self) -> int:
        """Address of the half that messages arrive in."""
        return int(self.mr.buf) + self.settings.half_bytes

    @property
    def remote_recv_address(self) -> int:
        """Address of the peer's receive half."""
        return self.peer.addr + self.settings.half_bytes

    def close(self) -> None:
        """Close the context and with it everything."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Report:
    """What came out. Latencies in ns: one way for send_lat and write_lat, else until the answer is there."""

    settings: Settings
    elapsed_ns: int
    samples_ns: Sequence[float]

    def as_dict(self) -> dict[str, Any]:
        """Return the object that `--json` prints; see docs/perf.md for its fields."""
        s = self.settings
        is_latency = TESTS[s.test].is_latency
        rate = s.iters / (self.elapsed_ns / 1e9) if self.elapsed_ns else math.inf
        return {
            "test": s.test,
            "loop": s.loop,
            "size_bytes": s.size_bytes,
            "iters": s.iters,
            "tx_depth": s.tx_depth,
            "post_list": s.post_list,
            "events": s.events,
            "checked": s.check,
            "latency_ns": latency_summary(self.samples_ns) if is_latency else None,
            "bandwidth_bytes_per_s": None if is_latency else rate * s.size_bytes,
            "message_rate_per_s": None if is_latency else rate,
        }


def latency_summary(samples_ns: Sequence[float]) -> dict[str, float]:
    """Return minimum, mean, nearest-rank percentiles and maximum of at least one sample."""
    ordered = sorted(samples_ns)

    def percentile(permille: int) -> float:
        return round(ordered[-(-len(ordered) * permille // 1000) - 1], 1)

    return {
        "min": round(ordered[0], 1),
        "p50": percentile(500),
        "mean": round(sum(ordered) / len(ordered), 1),
        "p90": percentile(900),
        "p99": percentile(990),
        "p99.9": percentile(999),
        "max": round(ordered[-1], 1),
    }


def _measure(endpoint: Endpoint, link: Link, is_server: bool) -> Report:
    settings = endpoint.settings
    if settings.loop == "c":
        from ffverbs import _perf_c as loop  # noqa: PLC0415 - one of the two is needed
    else:
        from ffverbs import _perf_python as loop  # type: ignore[no-redef]  # noqa: PLC0415
    elapsed_ns, round_trips_ns = loop.run(endpoint, link, is_server)
    divisor = 2 if TESTS[settings.test].one_way else 1
    return Report(settings, elapsed_ns, [sample / divisor for sample in round_trips_ns])


def run_client(link: Link, settings: Settings, device: str | None = None, gid_index: int = 1) -> Report:
    """Measure against a server at the other end of `link`; both ends are done when this returns."""
    with link:
        link.send("settings", protocol=PROTOCOL, **dataclasses.asdict(settings))
        link.receive("ready")
        with Endpoint(settings, device, gid_index) as endpoint:
            endpoint.connect(link)
            report = _measure(endpoint, link, is_server=False)
            link.send("report", report=report.as_dict())
            link.meet()
    return report


def run_server(link: Link, test: str | None = None, device: str | None = None, gid_index: int = 1) -> dict[str, Any]:
    """Serve one client and return the report it made (see Report.as_dict()). `test` None takes any."""
    with link:
        said = link.receive("settings")
        del said["kind"]
        if said.pop("protocol", None) != PROTOCOL:
            raise PerfError("client and server are of different versions of ffverbs: install one version")
        if test is not None and said.get("test") != test:
            raise PerfError(f"the server measures {test}, the client asked for {said.get('test')}: start both alike")
        settings = Settings.of(**said)
        with Endpoint(settings, device, gid_index) as endpoint:
            link.send("ready")
            endpoint.connect(link)
            _measure(endpoint, link, is_server=True)
            report: dict[str, Any] = link.receive("report")["report"]
            link.meet()
    return report
