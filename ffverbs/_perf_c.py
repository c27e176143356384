"""Run the engine's own measuring loop, in C: what an application in C gets."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ffverbs._native import ffi, lib
from ffverbs.base import check
from ffverbs.libibverbs_enums import IBV_QP_STATE, IBV_QPS_ERR
from ffverbs.pyverbs_error import PyverbsError
from ffverbs.qp import QPAttr

if TYPE_CHECKING:
    from ffverbs._perf import Endpoint, Link

__all__ = ["run"]


@contextmanager
def _stopped_with_the_peer(endpoint: "Endpoint", link: "Link") -> Iterator[None]:
    """Put the queue pair into ERR when the peer gives up, which ends a loop that waits for it.

    A peer that dies does that itself; one that fails and leaves in good order does not, as on hardware.
    """
    ended, end = socket.socketpair()

    def watch() -> None:
        readable, _, _ = select.select([link.fileno(), ended.fileno()], [], [])
        if ended.fileno() not in readable and link.peer_has_failed():
            endpoint.qp.modify(QPAttr(qp_state=IBV_QPS_ERR), IBV_QP_STATE)

    watcher = threading.Thread(target=watch, name="ffverbs perf: peer")
    watcher.start()
    try:
        yield
    finally:
        end.close()
        watcher.join()
        ended.close()


def run(endpoint: "Endpoint", link: "Link", is_server: bool) -> tuple[int, list[int]]:
    """Run one end; the two ends meet through their queue pair. Returns (elapsed ns, round trips in ns)."""
    from ffverbs._perf import TESTS  # noqa: PLC0415 - that module imports this one when it needs it

    settings = endpoint.settings
    test = TESTS[settings.test]
    params = ffi.new("struct ffv_perf_params *")
    params.qp = endpoint.qp._live()
    params.send_cq = endpoint.send_cq._live()
    params.recv_cq = endpoint.recv_cq._live()
    params.channel = endpoint.channel._live() if endpoint.channel is not None else ffi.NULL
    params.mr = endpoint.mr._live()
    params.remote_addr = endpoint.peer.addr
    params.rkey = endpoint.peer.rkey
    params.test = test.number
    params.is_server = is_server
    params.post_list = settings.post_list
    params.tx_depth = settings.tx_depth
    params.rx_depth = settings.rx_depth
    params.max_inline = settings.max_inline
    params.check = settings.check
    params.size_bytes = settings.size_bytes
    params.iters = settings.iters
    params.warmup = settings.warmup
    takes_samples = test.is_latency and not is_server
    samples = ffi.new("uint64_t[]", settings.iters) if takes_samples else ffi.NULL
    elapsed = ffi.new("uint64_t *")
    try:
        with _stopped_with_the_peer(endpoint, link):
            check(lib.ffv_perf_run(params, samples, elapsed), "The measurement failed")
    except PyverbsError:
        if link.peer_has_failed():
            link.receive("nothing more")  # raises what the peer says
        raise
    return int(elapsed[0]), list(samples) if takes_samples else []
