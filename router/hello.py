"""How two routers begin: versions, names, and the proof that both know the cluster secret (docs/wire.md). No I/O.

Each side makes a Hello, sends `first()`, reads the other's with `read_first()`, sends `second()`, and checks the
other's with `read_second()`. A HelloError's text is what the other side may be told.
"""

import hashlib
import hmac
import json
import re
import secrets

__all__ = ["MAX_BYTES", "TRANSPORTS", "Hello", "HelloBusyError", "HelloError", "pack", "unpack_length"]

MAX_BYTES = 4096
TRANSPORTS = ("rdma", "tcp")  # the best first
_NONCE_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class HelloError(Exception):
    """The other side is no router that we talk to."""


class HelloBusyError(HelloError):
    """The other side is connecting to us at this moment, and its connection wins."""


def pack(fields: dict[str, object]) -> bytes:
    """Return a message: its length, then JSON."""
    body = json.dumps(fields, separators=(",", ":")).encode()
    return len(body).to_bytes(4, "big") + body


def unpack_length(prefix: bytes) -> int:
    """Return how many bytes follow; HelloError if that cannot be."""
    length = int.from_bytes(prefix, "big")
    if not 2 <= length <= MAX_BYTES:
        raise HelloError("what answers there is no router of ffverbs")
    return length


def _parse(body: bytes) -> dict[str, object]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise HelloError("what answers there is no router of ffverbs")
    if "error" in fields:
        kind = HelloBusyError if fields.get("busy") is True else HelloError
        raise kind(f"it refused: {str(fields['error'])[:200]}")
    return fields


class Hello:
    """One side of a beginning."""

    def __init__(
        self,
        host: str,
        secret: bytes,
        versions: tuple[int, ...],
        *,
        connected: bool,
        transports: tuple[str, ...] = ("tcp",),
        tenants: tuple[str, ...] = ("default",),
    ) -> None:
        """`transports`: those that this side offers, the best first; `tenants`: ours, and those that we talk to."""
        self._host, self._secret, self._versions, self._connected = host, secret, versions, connected
        self._transports, self._tenants = transports, tenants
        self._nonce = secrets.token_bytes(_NONCE_BYTES)
        self._theirs = b""
        self.peer = ""
        self.tenant = ""
        self.version = 0
        self.transport = ""
        # Which earlier connection this one is to go on with: what we say (before `second()`), and what they said.
        self.resume = ""
        self.their_resume = ""

    @property
    def session(self) -> str:
        """A name of what begins with this hello, the same on both sides."""
        return hashlib.sha256(b"".join(sorted((self._nonce, self._theirs)))).hexdigest()[:32]

    @property
    def resumed(self) -> bool:
        """Whether both sides go on with an earlier connection."""
        return bool(self.resume) and self.resume == self.their_resume

    def first(self) -> bytes:
        """Return our first message."""
        return pack(
            {
                "ffverbs": "router",
                "versions": list(self._versions),
                "host": self._host,
                "tenant": self._tenants[0],
                "nonce": self._nonce.hex(),
                "transports": list(self._transports),
            }
        )

    def read_first(self, body: bytes) -> None:
        """Read theirs: who it is, and which version both speak."""
        fields = _parse(body)
        versions, host, nonce = (fields.get(name) for name in ("versions", "host", "nonce"))
        if fields.get("ffverbs") != "router" or not isinstance(host, str) or not _NAME.fullmatch(host):
            raise HelloError("what answers there is no router of ffverbs")
        if not isinstance(nonce, str) or not re.fullmatch(rf"[0-9a-f]{{{2 * _NONCE_BYTES}}}", nonce):
            raise HelloError("its nonce is malformed")
        if not isinstance(versions, list) or not versions or not all(type(v) is int for v in versions):
            raise HelloError("it names no versions")
        common = set(versions) & set(self._versions)
        if not common:
            raise HelloError(
                f"router of {host} speaks versions {sorted(versions)[:8]} of the protocol, the one of {self._host}"
                f" {list(self._versions)}: update the older of them"
            )
        if host == self._host:
            raise HelloError(f"both routers say that they are host {host}: give each a name of its own (--host)")
        self.peer, self.version, self._theirs = host, max(common), bytes.fromhex(nonce)
        if hmac.compare_digest(self._theirs, self._nonce):
            raise HelloError("its nonce is ours")
        self._check_tenant(fields.get("tenant"))
        self._choose(fields.get("transports", ["tcp"]))

    def _check_tenant(self, theirs: object) -> None:
        """Talk only to tenants that we were told to; it is in the proof, too."""
        if not isinstance(theirs, str) or not _NAME.fullmatch(theirs):
            raise HelloError("it names no tenant")
        self.tenant = theirs
        if theirs not in self._tenants:
            raise HelloError(
                f"the router of {self.peer} is of tenant {theirs}, the one of {self._host} of {self._tenants[0]}: their"
                " containers may not talk to each other (--allow-tenant, on both sides)"
            )

    def _choose(self, theirs: object) -> None:
        """Take the best transport that both have: both sides come to the same one."""
        if not isinstance(theirs, list) or not all(isinstance(name, str) for name in theirs):
            raise HelloError("its transports are malformed")
        common = [name for name in TRANSPORTS if name in theirs and name in self._transports]
        if not common:
            raise HelloError(
                f"router of {self.peer} offers {', '.join(theirs)[:80] or 'no transport'}, the one of {self._host}"
                f" {', '.join(self._transports)}: see --transport of both"
            )
        self.transport = common[0]

    def _proof(self, resume: str, *, connected: bool) -> str:
        """Return the proof of the side that connected, or of the one that accepted, and says what to resume."""
        mine = connected == self._connected
        parts = [
            b"ffverbs-router",
            b"connected" if connected else b"accepted",
            str(self.version).encode(),
            self._nonce if mine else self._theirs,
            self._theirs if mine else self._nonce,
            (self._host if mine else self.peer).encode(),
            (self.peer if mine else self._host).encode(),
            (self._tenants[0] if mine else self.tenant).encode(),
            (self.tenant if mine else self._tenants[0]).encode(),
            resume.encode(),
        ]
        text = b"".join(len(part).to_bytes(2, "big") + part for part in parts)
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()

    def second(self) -> bytes:
        """Return our proof."""
        proof = self._proof(self.resume, connected=self._connected)
        return pack({"version": self.version, "resume": self.resume, "proof": proof})

    def read_second(self, body: bytes) -> None:
        """Check theirs, in constant time."""
        fields = _parse(body)
        proof, resume = fields.get("proof"), fields.get("resume")
        if fields.get("version") != self.version or not isinstance(proof, str):
            raise HelloError("its proof is malformed")
        if not isinstance(resume, str) or not re.fullmatch(r"([0-9a-f]{32})?", resume):
            raise HelloError("what it wants to resume is malformed")
        expected = self._proof(resume, connected=not self._connected)
        if not hmac.compare_digest(proof.encode(), expected.encode()):
            raise HelloError(
                f"the cluster secrets of {self._host} and {self.peer} differ: give both routers the same"
                " --cluster-secret-file"
            )
        self.their_resume = resume
