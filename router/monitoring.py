"""What the router shows to monitors: GET /metrics (Prometheus) and GET /health (JSON; 200 if all is well, else 503).

The server has a thread of its own; what it shows it asks of the router's event loop, so that a loop that hangs is seen.
"""

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from router import node

__all__ = ["exposition", "serve"]

log = logging.getLogger("ffverbs.router")

_ASK_S = 2.0
Status = dict[str, Any]

_TOTALS = {
    "frames_sent": "Frames sent to other routers.",
    "frames_received": "Frames received from other routers.",
    "bytes_sent": "Bytes sent to other routers.",
    "bytes_received": "Bytes received from other routers.",
    "bytes_placed": "Bytes received from other routers straight into the memory of containers.",
    "bytes_one_sided_sent": "Bytes of large messages that RDMA devices moved from containers here to another host's.",
    "bytes_one_sided_received": "Bytes of large messages that RDMA devices moved into containers here.",
    "bytes_streamed": "Bytes of large messages sent in frames, but for the last 64 of each SEND and WRITE.",
    "windows_made": "Windows of containers' memory that were registered on real RDMA devices.",
    "windows_found": "How often a window that was wanted was registered already.",
    "windows_dropped": "Windows that were given up, with their container's registration or for being unused.",
    "rate_waits": "How often sending waited for --tenant-rate.",
    "claims_refused": "Contexts that another host spoke for though the registry gives their address to somebody else.",
    "datagrams_dropped": "Datagrams that were lost here, as datagrams may be.",
}
_NOW = {
    "channels": "Connections to other routers.",
    "proxies": "Contexts of other hosts that have a proxy here.",
    "pairs": "Queue pairs between this host and others.",
    "pairs_warm": "Of them, those in use now or within the last seconds.",
    "windows": "Windows of containers' memory that are registered on real RDMA devices.",
    "window_bytes": "Bytes of them.",
    "under_way": "Work requests between this host and others that are not done.",
}


def _families(status: Status) -> Iterable[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

    def gauge(name: str, text: str, value: float) -> Any:
        return GaugeMetricFamily(f"ffverbs_router_{name}", text, value=value)

    yield gauge("healthy", "1 if the router has no problem, else 0.", not status["problems"])
    yield gauge("registry_connected", "1 while the registry can be reached.", status["registry"]["connected"])
    yield gauge("registry_hosts", "Hosts that the registry knows.", status["registry"]["hosts"])
    yield gauge("registry_containers", "Containers that the registry knows.", status["registry"]["containers"])
    yield gauge("containers", "Containers of this host that others can find.", len(status["containers"]))
    for name, text in _NOW.items():
        yield gauge(name, text, status["counters"][name])
    for name, text in _TOTALS.items():
        yield CounterMetricFamily(f"ffverbs_router_{name}", text, value=status["counters"][name])
    for name, text in _TOTALS.items():
        if name in ("frames_sent", "frames_received", "bytes_sent", "bytes_received"):
            family = CounterMetricFamily(
                f"ffverbs_router_peer_{name}", f"{text[:-1]}, by host.", labels=["host", "transport"]
            )
            for peer in status["peers"]:
                family.add_metric([peer["host"], peer["transport"]], peer[name])
            yield family


def exposition(status: Status) -> bytes:
    """Return a status in Prometheus' text format; ImportError where prometheus-client is missing."""
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415, routing works without it

    class Collector:
        def collect(self) -> Iterable[Any]:
            return _families(status)

    registry = CollectorRegistry()
    registry.register(Collector())
    return generate_latest(registry)


def _make_handler(ask: Callable[[], Status]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0

        def do_GET(self) -> None:
            pages = {"/metrics": self._metrics, "/health": self._health}
            page = pages.get(self.path.partition("?")[0])
            if page is None:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there are /metrics and /health\n")
                return
            try:
                page(ask())
            except Exception as error:
                log.warning("a monitor got no answer: %r", error)
                self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"the router does not answer\n")

        def _metrics(self, status: Status) -> None:
            try:
                body = exposition(status)
            except ImportError:
                self._send(HTTPStatus.NOT_IMPLEMENTED, "text/plain",
                           b"metrics need prometheus-client: pip install 'ffverbs[router]'\n")  # fmt: skip
                return
            self._send(HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", body)

        def _health(self, status: Status) -> None:
            well = not status["problems"]
            body = json.dumps({"healthy": well, "problems": status["problems"]}).encode() + b"\n"
            self._send(HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE, "application/json", body)

        def _send(self, code: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            log.debug("monitor: " + format, *args)

    return Handler


@contextlib.contextmanager
def serve(
    where: tuple[str, int], status: Callable[[], Status], loop: asyncio.AbstractEventLoop, *, required: bool
) -> Iterator[None]:
    """Serve until the context ends; NodeError if nobody can listen there and it is required.

    `status` is called in the loop.
    """

    async def tell() -> Status:
        return status()

    def ask() -> Status:
        return asyncio.run_coroutine_threadsafe(tell(), loop).result(_ASK_S)

    try:
        server = ThreadingHTTPServer(where, _make_handler(ask))
    except OSError as error:
        text = f"cannot listen at {where[0]}:{where[1]}: {error.strerror}; choose another --http, or off"
        if required:
            raise node.NodeError(text) from error
        log.warning("there are no metrics: %s", text)
        yield
        return
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="http", daemon=True)
    thread.start()
    log.info("metrics and health are at http://%s:%d", *server.server_address[:2])
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
