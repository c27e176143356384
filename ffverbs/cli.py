"""The command line: `ffverbs devinfo`, `ffverbs status`, `ffverbs perf`, `ffverbs sockets`.

Results go to stdout, everything else to stderr. Exit status: 0, 1 when something failed, 2 for a wrong command line.
"""

import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec

import click
from rich.console import Console
from rich.live import Live

from ffverbs import __version__
from ffverbs.pyverbs_error import PyverbsError

__all__ = ["main"]

_P = ParamSpec("_P")
_TESTS: Final = ("send_lat", "send_bw", "write_lat", "write_bw", "read_lat", "read_bw", "atomic_lat")
_DEFAULT_PORT: Final = 18515  # perftest's
_CONNECT_WITHIN_S: Final = 10.0


def _bytes(value: str) -> int:
    """A number of bytes with an optional binary suffix: 64, 64K, 1M, 2G."""
    match = re.fullmatch(r"(\d+)([KMG]?)", value, re.IGNORECASE)
    if not match:
        raise click.BadParameter(f"{value!r} is no number of bytes: write for example 64, 64K or 1M")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]


def _cpus(value: str) -> tuple[int, int]:
    """Two processors, for example 0,1."""
    match = re.fullmatch(r"(\d+),(\d+)", value)
    if not match:
        raise click.BadParameter(f"{value!r} does not name two processors: write for example 0,1")
    return int(match[1]), int(match[2])


def _errors_are_told(command: Callable[_P, None]) -> Callable[_P, None]:
    """Turn what the package raises into one line on stderr and status 1."""

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:
            # Whoever read our output has left (`| head`); nothing more may be written, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except (PyverbsError, OSError, ImportError) as error:
            raise click.ClickException(str(error)) from error

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ffverbs")
def main() -> None:
    """RDMA verbs without RDMA hardware: look at the device and its users, and measure."""


@main.command()
@click.argument("device", required=False)
@click.option("-v", "--verbose", is_flag=True, help="Show the device's limits, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_errors_are_told
def devinfo(device: str | None, verbose: bool, as_json: bool) -> None:
    """Show the device, its port and its GIDs."""
    from ffverbs import _devinfo  # noqa: PLC0415 - the engine is loaded by commands, not by --help

    devices = _devinfo.gather(device)
    if as_json:
        click.echo(json.dumps(devices, indent=2))
    else:
        _devinfo.print_devices(Console(), devices, verbose)


@main.command()
@click.option("--dir", "directory", type=click.Path(), help="Node directory; default: the one programs here join.")
@click.option("--watch", is_flag=True, help="Show it again and again until interrupted.")
@click.option("--interval", type=click.FloatRange(0.05), default=1.0, show_default=True, help="Seconds of --watch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one object, or with --watch one a line.")
@_errors_are_told
def status(directory: str | None, watch: bool, interval: float, as_json: bool) -> None:
    """Show the contexts of this host's node directory, their queue pairs, paths and counters."""
    from ffverbs import _status  # noqa: PLC0415

    if not watch:
        found = _status.gather(directory)
        if as_json:
            click.echo(json.dumps(found, indent=2))
        else:
            _status.print_status(Console(), found)
        return
    with suppress(KeyboardInterrupt):
        if as_json:
            while True:
                click.echo(json.dumps(_status.gather(directory)))
                time.sleep(interval)
        rates = _status.Rates()
        with Live(_status.render(_status.gather(directory), rates), console=Console(), auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                live.update(_status.render(_status.gather(directory), rates), refresh=True)


def _describe(address: str, port: int) -> str:
    return address if address.startswith("unix:") else f"{address}:{port}"


@contextmanager
def _listening(address: str, port: int) -> Iterator[socket.socket]:
    """A listener at an IP address, or at unix:PATH (removed afterwards)."""
    if not address.startswith("unix:"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.create_server((address, port), family=family) as listener:
            yield listener
        return
    path = Path(address.removeprefix("unix:"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        try:
            listener.listen()
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _connected(address: str, port: int) -> socket.socket:
    if not address.startswith("unix:"):
        return socket.create_connection((address, port), _CONNECT_WITHIN_S)
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.connect(address.removeprefix("unix:"))
    except BaseException:
        connected.close()
        raise
    return connected


def _serve(test: str, bind: str, port: int, device: str | None, gid_index: int) -> dict[str, Any]:
    from ffverbs._perf import Link, PerfError, run_server  # noqa: PLC0415

    try:
        with _listening(bind, port) as listener:
            click.echo(f"waiting for a client: ffverbs perf {test} {_describe(bind, port)}", err=True)
            connected, _ = listener.accept()
    except OSError as error:
        raise PerfError(
            f"cannot listen at {_describe(bind, port)}: {error}; choose another --bind or --port"
        ) from error
    return run_server(Link(connected), test, device, gid_index)


def _measure(server: str, port: int, settings: Any, device: str | None, gid_index: int) -> Any:
    from ffverbs._perf import Link, PerfError, run_client  # noqa: PLC0415

    host, colon, own_port = server.rpartition(":")
    if colon and own_port.isdigit() and ":" not in host and not server.startswith("unix:"):
        server, port = host, int(own_port)
    try:
        connected = _connected(server, port)
    except OSError as error:
        where = _describe(server, port)
        raise PerfError(f"no server at {where}: {error}; start `ffverbs perf {settings.test}` there first") from error
    return run_client(Link(connected), settings, device, gid_index)


@main.command()
@click.argument("test", type=click.Choice(_TESTS))
@click.argument("server", required=False)
@click.option(
    "-s", "--size", type=_bytes, metavar="BYTES", help="Bytes of a message [default: 2 latency, 64K bandwidth]."
)
@click.option("-n", "--iters", type=int, help="Iterations that are timed [default: 1000; write_bw 5000].")
@click.option("--warmup", type=int, help="Iterations before them [default: as many, at most 1000].")
@click.option("-t", "--tx-depth", type=int, help="Send queue [default: 64 latency, 128 bandwidth].")
@click.option("-r", "--rx-depth", type=int, help="Receive queue [default: 512 for SEND].")
@click.option("-l", "--post-list", type=int, help="Work requests per post call [default: 1].")
@click.option(
    "-I",
    "--inline-size",
    type=_bytes,
    metavar="BYTES",
    help="Largest message sent inline [default: 236/220 latency, else 0].",
)
@click.option("-e", "--events", is_flag=True, help="Sleep on completion events instead of spinning.")
@click.option("--check", is_flag=True, help="Check every byte at the far end (slower).")
@click.option("--loop", type=click.Choice(["c", "python"]), default="c", show_default=True, help="Who runs the loop.")
@click.option("--local", is_flag=True, help="Run both ends here, in two processes.")
@click.option(
    "--cpus", type=_cpus, metavar="A,B", help="Processors of client and server with --local [default: the first two]."
)
@click.option("--bind", default="127.0.0.1", show_default=True, help="Where a server listens: an address or unix:PATH.")
@click.option("-p", "--port", type=click.IntRange(1, 65535), default=_DEFAULT_PORT, show_default=True, help="TCP port.")
@click.option("-d", "--device", help="Device [default: the first].")
@click.option("-x", "--gid-index", type=click.IntRange(0, 255), default=1, show_default=True, help="Which GID to use.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@_errors_are_told
def perf(test: str, server: str | None, local: bool, cpus: tuple[int, int] | None, **options: Any) -> None:
    """Measure latency or bandwidth, in perftest's words.

    Without SERVER this end is the server and waits for one client, whose settings it takes over. With SERVER (HOST,
    HOST:PORT or unix:PATH) it is the client. With --local it is both.
    """
    from ffverbs._perf import Settings  # noqa: PLC0415

    if local and server:
        raise click.UsageError("--local runs the server, too: leave SERVER out")
    if cpus and not local:
        raise click.UsageError("--cpus is for --local: pin one end with taskset")
    settings = Settings.of(
        test,
        size_bytes=options["size"],
        max_inline=options["inline_size"],
        **{name: options[name] for name in ("iters", "warmup", "tx_depth", "rx_depth", "post_list")},
        **{name: options[name] for name in ("loop", "events", "check")},
    )
    where = options["device"], options["gid_index"]
    samples: Any = []
    if local:
        from ffverbs._perf_local import run_local  # noqa: PLC0415

        result = run_local(settings, cpus, *where)
        report, samples = result.as_dict(), result.samples_ns
    elif server:
        result = _measure(server, options["port"], settings, *where)
        report, samples = result.as_dict(), result.samples_ns
    else:
        report = _serve(test, options["bind"], options["port"], *where)
    _show(report, samples, options["as_json"])


def _show(report: dict[str, Any], samples: Any, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report))
        return
    from ffverbs._perf_text import print_report  # noqa: PLC0415

    print_report(Console(), report, samples)


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, metavar="PROGRAM [ARGS]...", type=click.UNPROCESSED)
@_errors_are_told
def sockets(command: tuple[str, ...]) -> None:
    """Run a program with its TCP connections on verbs, where the peer has them on verbs too.

    The program and what it starts are any that are linked dynamically. Everything else goes by TCP as ever.
    """
    from ffverbs import _sockets  # noqa: PLC0415

    _sockets.run(command)


if __name__ == "__main__":
    main()
