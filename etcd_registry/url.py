"""Registry URLs: `etcd://HOST:PORT,HOST:PORT[?OPTIONS]` and `static:FILE`.

Options of etcd, as in a query string: `user` and `password_file` (its first line is the password: a password has no
business in a command line, where everybody can read it); `ca`, `cert`, `key` (files in PEM; any of them, or `tls=1` for
the system's authorities, asks for TLS); `timeout` (seconds that a call may take).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from .errors import AlienRecordError, RegistryUrlError
from .records import parse_endpoint
from .registry import Lost, Registry, StoreRegistry
from .static import StaticRegistry

if TYPE_CHECKING:
    from .client import EtcdClient

__all__ = ["EtcdUrl", "StaticUrl", "open_registry", "parse_url"]

OPTIONS = {"user", "password_file", "ca", "cert", "key", "tls", "timeout"}
HOW = "write etcd://HOST:PORT,HOST:PORT or static:FILE"


@dataclass(frozen=True)
class EtcdUrl:
    """An etcd cluster: its members' endpoints, and how to reach them."""

    endpoints: tuple[str, ...]
    user: str | None = None
    password_file: Path | None = None
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    timeout_s: float = 3.0


@dataclass(frozen=True)
class StaticUrl:
    """A file that describes the cluster."""

    path: Path


def parse_url(text: str) -> EtcdUrl | StaticUrl:
    """Read a registry URL; RegistryUrlError says what is wrong with it."""
    scheme, colon, rest = text.partition(":")
    if scheme == "static" and colon:
        if not rest or rest.startswith("//"):
            raise RegistryUrlError(f"registry {text!r} names no file: write static:FILE, the path as it is")
        return StaticUrl(Path(rest))
    if scheme != "etcd" or not rest.startswith("//"):
        raise RegistryUrlError(f"registry {text!r} is of no kind that is known: {HOW}")
    members, _, query = rest[2:].partition("?")
    endpoints = tuple(filter(None, members.rstrip("/").split(",")))
    if not endpoints:
        raise RegistryUrlError(f"registry {text!r} names no member of etcd: {HOW}")
    for endpoint in endpoints:
        try:
            parse_endpoint(endpoint)
        except AlienRecordError as error:
            raise RegistryUrlError(f"registry {text!r}: {error}") from None
    if len(set(endpoints)) != len(endpoints):
        raise RegistryUrlError(f"registry {text!r} names a member of etcd twice")
    return _etcd(text, endpoints, query)


def _etcd(text: str, endpoints: tuple[str, ...], query: str) -> EtcdUrl:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise RegistryUrlError(f"registry {text!r}: options are written ?NAME=VALUE&NAME=VALUE") from None
    options = dict(pairs)
    if unknown := options.keys() - OPTIONS:
        raise RegistryUrlError(
            f"registry {text!r} has no option {', '.join(sorted(unknown))}: there are {', '.join(sorted(OPTIONS))}"
        )
    if len(options) != len(pairs) or "" in options.values():
        raise RegistryUrlError(f"registry {text!r}: each option is given once, and with a value")
    if ("user" in options) != ("password_file" in options):
        raise RegistryUrlError(f"registry {text!r}: user and password_file go together")
    if ("cert" in options) != ("key" in options):
        raise RegistryUrlError(f"registry {text!r}: cert and key go together")
    if options.get("tls", "1") not in ("0", "1"):
        raise RegistryUrlError(f"registry {text!r}: tls is 1 or 0")
    files = {name: Path(options[name]) for name in ("password_file", "ca", "cert", "key") if name in options}
    tls = options.get("tls") == "1" or bool(files.keys() & {"ca", "cert"})
    if options.get("tls") == "0" and tls:
        raise RegistryUrlError(f"registry {text!r}: tls=0, but with files for TLS")
    return EtcdUrl(endpoints, user=options.get("user"), tls=tls, timeout_s=_timeout(text, options), **files)


def _timeout(text: str, options: dict[str, str]) -> float:
    try:
        timeout_s = float(options.get("timeout", "3"))
    except ValueError:
        timeout_s = -1.0
    if not 0.1 <= timeout_s <= 60:
        raise RegistryUrlError(f"registry {text!r}: timeout is a number of seconds, from 0.1 to 60")
    return timeout_s


def open_etcd(url: EtcdUrl) -> "EtcdClient":
    """Make the client; RegistryUrlError where a file of the URL, or grpcio, is missing."""
    try:
        from .client import Credentials, EtcdClient, Tls  # noqa: PLC0415, everything else works without grpcio
    except ImportError as error:
        raise RegistryUrlError(
            f"etcd needs grpcio and protobuf ({error}): install them with pip install 'ffverbs[router]'"
        ) from None
    credentials = None
    if url.user is not None and url.password_file is not None:
        credentials = Credentials(url.user, _password(url.password_file))
    tls = Tls(url.ca, url.cert, url.key) if url.tls else None
    return EtcdClient(url.endpoints, credentials=credentials, tls=tls, timeout_s=url.timeout_s)


def _password(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryUrlError(f"password file {path} cannot be read: {error}") from None
    if not lines or not lines[0]:
        raise RegistryUrlError(f"password file {path} is empty: its first line is the password")
    return lines[0]


def open_registry(text: str, *, ttl_s: int = 10, lost: Lost | None = None) -> Registry:
    """Return the registry that a URL names, not yet started; call it within a running event loop.

    `ttl_s` and `lost` are StoreRegistry's.
    """
    url = parse_url(text)
    if isinstance(url, StaticUrl):
        return StaticRegistry(url.path)
    return StoreRegistry(open_etcd(url), ttl_s=ttl_s, lost=lost)
