"""The command line: `ffverbs-router`."""

import asyncio
import logging
import os
import re
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

import click

from etcd_registry import PoolError, Record, Registry, RegistryError, open_registry, parse_pool
from etcd_registry.registry import Network
from router import logs
from router._data import RouterError
from router.carriers import RdmaSettings
from router.daemon import Router
from router.node import NodeError
from router.settings import DEFAULT_PORT, Settings

__all__ = ["main", "parse_rate"]

_MIN_SECRET_BYTES = 16
_MAX_RATE = 10**12  # FFV_ROUTER_MAX_RATE


def _fail(text: object) -> NoReturn:
    click.echo(f"ffverbs-router: {text}", err=True)
    sys.exit(1)


def _read_secret(path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        _fail(f"the cluster secret {path} cannot be read: {error.strerror}")
    if len(secret) < _MIN_SECRET_BYTES:
        _fail(f"the cluster secret {path} has fewer than {_MIN_SECRET_BYTES} bytes: make one with openssl rand -hex 32")
    return secret


def _raise_descriptor_limit() -> None:
    """Connections of containers take a descriptor each: take what the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _route(settings: Settings, url: str) -> None:
    def lost(record: Record, holder: str) -> None:
        router.lost(record, holder)

    registry: Registry = open_registry(url, lost=lost)
    router = Router(settings, registry)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, router.stop)
    await router.run()


def _pool(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Network | None:
    try:
        pool = parse_pool(value) if value is not None else None
    except PoolError as error:
        raise click.BadParameter(str(error)) from error
    if pool is not None and pool.version != 4:
        raise click.BadParameter(f"pool {value!r}: containers have IPv4 addresses")
    return pool


def _http(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int] | str | None:
    if value in ("auto", "off"):
        return value if value == "auto" else None
    address, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{value!r}: write ADDRESS:PORT, for example 127.0.0.1:7472, or off")
    return address.strip("[]"), int(port)


def parse_rate(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    """Return bytes a second; click.BadParameter if it is no rate."""
    found = re.fullmatch(r"([0-9]{1,12})([KMG]?)", value)
    number = int(found[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[found[2]] if found else -1
    if not 0 <= number <= _MAX_RATE:
        raise click.BadParameter(f"{value!r}: write bytes a second, for example 125M, at most 1000G; 0 is no limit")
    return number


def _default_host(tenant: str) -> str:
    return socket.gethostname() + ("" if tenant == "default" else f".{tenant}")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--dir", "directory", type=click.Path(path_type=Path, file_okay=False), required=True,
              help="Node directory of the containers of this host.")  # fmt: skip
@click.option("--host-ip", required=True, help="Address at which other routers reach this one.")
@click.option("--listen", "port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True,
              help="Port there.")  # fmt: skip
@click.option("--host", help="Name of this router's host in the registry.  [default: the machine's name, with .TENANT"
              " unless that is default]")  # fmt: skip
@click.option("--registry", "url", required=True, help="static:FILE, or etcd://HOST:PORT,HOST:PORT")
@click.option("--transport", type=click.Choice(["auto", "tcp", "rdma"]), default="auto", show_default=True,
              help="What carries frames to other hosts; auto takes RDMA where both have it, else TCP.")  # fmt: skip
@click.option("--rdma-device", default="", help="RDMA device.  [default: the one that has the address of --host-ip]")
@click.option("--rdma-gid-index", type=click.IntRange(0), help="GID there.  [default: the RoCE v2 GID of --host-ip]")
@click.option("--cluster-secret-file", "secret_file", type=click.Path(path_type=Path, dir_okay=False),
              help="What all routers of a cluster know, and nobody else.")  # fmt: skip
@click.option("--tenant", default="default", show_default=True, help="Whose containers these are.")
@click.option("--tenant-rate", "rate", callback=parse_rate, metavar="BYTES", default="0",
              help="Most payload that these may send to other hosts, in bytes a second (K, M, G).")  # fmt: skip
@click.option("--fault", "faults", metavar="NAME=NUMBER,...", default="",
              help="Lose, double, delay or reorder what is sent, cut connections, by chance: for tests.")  # fmt: skip
@click.option(
    "--allow-tenant",
    "allowed",
    multiple=True,
    metavar="TENANT",
    help="Another tenant that these may talk to, if its routers allow this one, too; may be repeated.",
)
@click.option(
    "--pool",
    callback=_pool,
    metavar="CIDR",
    help="Addresses for containers with FFVERBS_IP=auto; the same on every host.",
)
@click.option(
    "--http",
    callback=_http,
    default="auto",
    metavar="ADDRESS:PORT",
    show_default=True,
    help="Where /metrics and /health are: auto is loopback, and the port after --listen's; or off.",
)
@click.option(
    "--drain-seconds",
    "drain_s",
    type=click.FloatRange(0, 3600),
    default=5.0,
    show_default=True,
    help="How long what is under way may take to end when the router is stopped.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: an object a line.",
)
@click.option("--verbose", is_flag=True, help="Say more.")
def main(
    directory: Path, host_ip: str, port: int, host: str | None, url: str, transport: str, secret_file: Path | None,
    tenant: str, rate: int, faults: str, verbose: bool, rdma_device: str, rdma_gid_index: int | None,
    allowed: tuple[str, ...], pool: Network | None, http: tuple[str, int] | str | None, drain_s: float, log_format: str,
) -> None:  # fmt: skip
    """Carry the queue pairs of this host's containers to those of other hosts."""
    logs.configure(log_format, verbose=verbose)
    rdma = RdmaSettings("tcp" if faults else transport, rdma_device, rdma_gid_index)
    unasked = isinstance(http, str)  # then it does without, if somebody else has the port
    settings = Settings(
        directory, host or _default_host(tenant), host_ip, port, tenant, _read_secret(secret_file), rdma, faults, rate,
        pool, allowed, drain_s, ("127.0.0.1", min(port + 1, 65535)) if isinstance(http, str) else http, not unasked,
    )  # fmt: skip
    # A device that is taken away leaves objects that nobody can destroy otherwise.
    os.environ.setdefault("RDMAV_ALLOW_DISASSOC_DESTROY", "1")
    _raise_descriptor_limit()
    if secret_file is None:
        logging.getLogger("ffverbs.router").warning(
            "no --cluster-secret-file: whoever reaches %s:%d is taken for a router of the cluster", host_ip, port
        )
    try:
        asyncio.run(_route(settings, url))
    except (NodeError, RegistryError, RouterError) as error:
        _fail(error)
