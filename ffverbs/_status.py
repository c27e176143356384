"""What stands in a node directory: contexts, their queue pairs, paths and counters (`ffverbs status`)."""

import json
import os
import socket
import struct
import time
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.table import Table

from ffverbs._native import ffi, lib
from ffverbs.base import check

__all__ = ["Rates", "gather", "render"]

_PATHS: Final = ("-", "shared memory", "router")
_STATES: Final = ("RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR", "UNKNOWN")
_TYPES: Final = {2: "RC", 3: "UC", 4: "UD", 8: "raw", 9: "XRC_SEND", 10: "XRC_RECV"}
_MAX_PATH: Final = 4096
_QUESTION: Final = struct.Struct("<QII16sII16sII")  # native/verbs/ask.h
_ASK_MAGIC: Final = int.from_bytes(b"ffvbrask", "little")
_ASK_STATUS: Final = 5
_ANSWER_S: Final = 2.0
_MAX_ANSWER: Final = 1 << 16


def _gid_text(gid: Any) -> str:
    raw = bytes(ffi.buffer(gid.raw))
    return ":".join(raw[i : i + 2].hex() for i in range(0, 16, 2))


def node_directory() -> str:
    """Return the node directory that a context of this process would join; PyverbsRDMAError if none is usable."""
    path = ffi.new("char[]", _MAX_PATH)
    check(lib.ffv_node_directory(path, _MAX_PATH), "Failed to find the node directory")
    text: bytes = ffi.string(path)
    return text.decode("utf-8", "surrogateescape")


def _queue_pair(info: Any) -> dict[str, Any]:
    return {
        "qp_num": info.qp_num,
        "type": _TYPES.get(info.qp_type, str(info.qp_type)),
        "state": _STATES[min(info.qp_state, len(_STATES) - 1)],
        "dest_qp_num": info.dest_qp_num,
        "dest_gid": _gid_text(info.dest_gid),
        "path": _PATHS[info.path] if info.path < len(_PATHS) else str(info.path),
        "sq_depth": info.sq_depth,
        "rq_depth": info.rq_depth,
        "last_status": info.last_status,
        "messages_sent": info.messages_sent,
        "bytes_sent": info.bytes_sent,
        "rnr_waits": info.rnr_waits,
        "retries": info.retries,
    }


def _context(info: Any) -> dict[str, Any]:
    program: bytes = ffi.string(info.program)
    return {
        "gid": _gid_text(info.gid),
        "qpn_first": info.qpn_first,
        "pid": info.pid or None,
        "program": program.decode("utf-8", "replace"),
        "num_qp": info.num_qp,
        "num_cq": info.num_cq,
        "num_mr": info.num_mr,
        "num_peers": info.num_peers,
        "registered_bytes": info.registered_bytes,
    }


def _add_transports(contexts: list[dict[str, Any]], router: dict[str, Any] | None) -> None:
    """Say of each queue pair what carries it: None on one host, and where the router does not know."""
    carriers = {peer["host"]: peer["transport"] for peer in router["peers"]} if router else {}
    routes = router["routes"] if router else {}
    for context in contexts:
        for pair in context["qps"]:
            host = routes.get(pair["dest_gid"])
            if host is not None:
                pair["path"] = _PATHS[2]
            pair["transport"] = carriers.get(host) if host is not None else None


def gather(directory: str | None = None) -> dict[str, Any]:
    """Return what is there now: {"directory": ..., "contexts": [{...}], "router": {...}}; see docs/status.md."""
    path = directory or node_directory()
    monitor = ffi.new("struct ffv_monitor **")
    check(lib.ffv_monitor_open(path.encode("utf-8", "surrogateescape"), monitor), f"Failed to look into {path}")
    contexts = []
    context, queue_pair = ffi.new("struct ffv_context_info *"), ffi.new("struct ffv_qp_info *")
    try:
        while check(lib.ffv_monitor_next_context(monitor[0], context), "Failed to read a context"):
            found = _context(context)
            found["qps"] = []
            while check(lib.ffv_monitor_next_qp(monitor[0], queue_pair), "Failed to read a queue pair"):
                found["qps"].append(_queue_pair(queue_pair))
            contexts.append(found)
    finally:
        lib.ffv_monitor_close(monitor[0])
    router = _router(path)
    _add_transports(contexts, router)
    return {"directory": path, "time": time.time(), "contexts": contexts, "router": router}


def _router(path: str) -> dict[str, Any] | None:
    """Ask the router of the node directory how it is; None if there is none that answers."""
    question = _QUESTION.pack(_ASK_MAGIC, 1, _ASK_STATUS, b"", 0, 0, b"", 0, 0)
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(_ANSWER_S)
            sock.connect(f"/proc/self/fd/{folder}/router.sock")
            sock.sendall(question)
            parts = list(iter(lambda: sock.recv(_MAX_ANSWER), b""))
            told = json.loads(b"".join(parts))
    except (OSError, ValueError):
        return None
    finally:
        os.close(folder)
    return told if isinstance(told, dict) else None


def format_bytes(count: int) -> str:
    """Return a number of bytes with a binary prefix."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _contexts_table(contexts: list[dict[str, Any]]) -> Table:
    table = Table(title="contexts", title_justify="left")
    for name in ("GID", "program", "pid"):
        table.add_column(name)
    for name in ("first QPN", "QPs", "CQs", "MRs", "registered", "peers"):
        table.add_column(name, justify="right")
    for c in contexts:
        numbers = (f"{c['qpn_first']:#x}", c["num_qp"], c["num_cq"], c["num_mr"], format_bytes(c["registered_bytes"]))
        pid = c["pid"] or "elsewhere"
        table.add_row(*map(str, (c["gid"], c["program"], pid, *numbers, c["num_peers"])))
    return table


class Rates:
    """Bytes a second since the look before; "-" for what was not there then."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._now: dict[str, int] = {}
        self._time, self._passed_s = 0.0, 0.0

    def begin(self, now: float) -> None:
        """Begin another look, at `now` in seconds."""
        self._before, self._now = self._now, {}
        self._time, self._passed_s = now, now - self._time

    def __call__(self, name: str, count: int) -> str:
        """Return the rate of what is called `name`, whose bytes are `count` now."""
        self._now[name] = count
        if name not in self._before or self._passed_s <= 0:
            return "-"
        return f"{format_bytes(max(0, round((count - self._before[name]) / self._passed_s)))}/s"


def _queue_pairs_table(contexts: list[dict[str, Any]], rates: Rates) -> Table:
    table = Table(title="queue pairs", title_justify="left")
    for name in ("program", "QPN", "type", "state", "peer", "path", "transport"):
        table.add_column(name)
    for name in ("SQ", "RQ", "messages", "bytes", "rate", "RNR", "retries", "error"):
        table.add_column(name, justify="right")
    for c in contexts:
        for q in c["qps"]:
            peer = f"{q['dest_qp_num']:#x}" if q["path"] != "-" else "-"
            rate = rates(f"{c['gid']} {q['qp_num']}", q["bytes_sent"])
            counters = (q["messages_sent"], format_bytes(q["bytes_sent"]), rate, q["rnr_waits"], q["retries"])
            where = (c["program"], f"{q['qp_num']:#x}", q["type"], q["state"], peer, q["path"], q["transport"] or "-")
            error = q["last_status"] or "-"
            table.add_row(*map(str, (*where, q["sq_depth"], q["rq_depth"], *counters, error)))
    return table


def _router_lines(router: dict[str, Any]) -> str:
    lines = [f"router of host {router['host']}, tenant {router['tenant']} (--transport {router['transport']})"]
    if router["rate_bytes_per_s"]:
        lines[0] += (
            f", at most {format_bytes(router['rate_bytes_per_s'])}/s, waited {router['counters']['rate_waits']} times"
        )
    if router["no_rdma"]:
        lines[0] += f", by TCP: {router['no_rdma']}"
    lines += [f"  problem: {problem}" for problem in router["problems"]]
    lines += [f"  host {host}: {how}" for host, how in router["channels"].items()]
    return "\n".join(lines)


def _peers_table(peers: list[dict[str, Any]], rates: Rates) -> Table:
    table = Table(title="other hosts", title_justify="left")
    for name in ("host", "transport"):
        table.add_column(name)
    for name in ("contexts", "QPs", "sent", "rate", "received", "rate"):
        table.add_column(name, justify="right")
    for peer in peers:
        flows = []
        for what in ("bytes_sent", "bytes_received"):
            flows += [format_bytes(peer[what]), rates(f"{what} {peer['host']}", peer[what])]
        table.add_row(*map(str, (peer["host"], peer["transport"], peer["proxies"], peer["pairs"], *flows)))
    return table


def render(status: dict[str, Any], rates: Rates | None = None) -> RenderableType:
    """Return the tables of what gather() found; `rates` knows what the look before found."""
    contexts, router = status["contexts"], status.get("router")
    rates = rates or Rates()
    rates.begin(status["time"])
    told: list[RenderableType] = [_router_lines(router)] if router else []
    if router and router["peers"]:
        told.append(_peers_table(router["peers"], rates))
    if not contexts:
        return Group(f"{status['directory']}: no context is open", *told)
    parts: list[RenderableType] = [status["directory"], *told, _contexts_table(contexts)]
    if any(c["qps"] for c in contexts):
        parts.append(_queue_pairs_table(contexts, rates))
    return Group(*parts)


def print_status(console: Console, status: dict[str, Any]) -> None:
    """Print the tables once."""
    console.print(render(status), highlight=False)
