"""The connection manager (pyverbs.cmid)."""

import struct
from errno import EINTR
from typing import Any, Final

from ffverbs._cint import check_int, check_u32, check_u64
from ffverbs._cm import AddrInfo, CMEvent, CMEventChannel, ConnParam, JoinMCAttrEx, UDParam, encoded
from ffverbs._native import ffi, lib
from ffverbs._struct import new, typed, typed_or_none
from ffverbs.addr import AH
from ffverbs.base import Handle, check, raise_errno
from ffverbs.cq import WC
from ffverbs.device import Context
from ffverbs.libibverbs_enums import (
    IBV_ACCESS_LOCAL_WRITE,
    IBV_ACCESS_REMOTE_READ,
    IBV_ACCESS_REMOTE_WRITE,
    IBV_SEND_SIGNALED,
)
from ffverbs.librdmacm_enums import RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, RDMA_PS_TCP
from ffverbs.mr import MR
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError
from ffverbs.qp import ECE, QPAttr, QPInitAttr

__all__ = ["CMID", "AddrInfo", "CMEvent", "CMEventChannel", "ConnParam", "JoinMCAttrEx", "UDParam"]

# Options of level RDMA_OPTION_ID by number, with the struct format of their values: pyverbs names the last only.
_TOS, _REUSEADDR, _AFONLY = 0, 1, 2
_OPTIONS: Final = {_TOS: "B", _REUSEADDR: "i", _AFONLY: "i", int(RDMA_OPTION_ID_ACK_TIMEOUT): "B"}


class CMID(Handle):
    """An identifier of the connection manager: what a socket is to TCP.

    `CMID(AddrInfo, ...)` is synchronous: with RAI_PASSIVE it is bound and can listen, else it is resolved, with a QP if
    `qp_init_attr` is given. `CMID(CMEventChannel, port_space=...)` is asynchronous. `CMID(CMEvent, listen_id=...)` is
    what a connect request made; `get_request()` makes the same of a synchronous one.
    """

    __slots__ = ("_channel", "_context", "_pd", "_shared_pd")

    _channel: CMEventChannel | None
    _context: Context | None
    _pd: PD | None  # the caller's
    _shared_pd: PD | None  # a wrapper of the id's own

    def __init__(
        self,
        creator: AddrInfo | CMEventChannel | CMEvent | None = None,
        qp_init_attr: QPInitAttr | None = None,
        pd: PD | None = None,
        port_space: int = RDMA_PS_TCP,
        listen_id: "CMID | None" = None,
    ) -> None:
        self._channel, self._context, self._shared_pd = None, None, None
        self._pd = typed_or_none("pd", pd, PD)
        typed_or_none("qp_init_attr", qp_init_attr, QPInitAttr)
        typed_or_none("listen_id", listen_id, CMID)
        if creator is None:
            return
        if isinstance(creator, AddrInfo):
            self._create_endpoint(creator, qp_init_attr)
        elif isinstance(creator, CMEventChannel):
            out = ffi.new("struct ffv_cm_id **")
            rc = lib.ffv_cm_create_id(creator._live(), out, ffi.NULL, check_u32(port_space))
            check(rc, "Failed to create CM ID")
            self._take(out[0], creator)
        elif isinstance(creator, CMEvent):
            self._take(creator._live().id, creator._channel)
            creator._taken = True
        else:
            raise PyverbsRDMAError(f"Cannot create CM ID from {type(creator)}", 0)

    def _take(self, handle: Any, channel: CMEventChannel | None) -> None:
        self._open(handle)
        self._channel = channel
        if channel is not None:
            channel._attach(self, "ids")

    def _create_endpoint(self, info: AddrInfo, qp_init_attr: QPInitAttr | None) -> None:
        out = ffi.new("struct ffv_cm_id **")
        domain = ffi.NULL if self._pd is None else self._pd._live()
        attr = ffi.NULL if qp_init_attr is None else qp_init_attr._linked()
        check(lib.ffv_cm_create_ep(out, info._live(), domain, attr), "Failed to create CM ID")
        self._take(out[0], None)
        if self._pd is not None:
            self._pd._attach(self, "qps")

    def _finish(self, rc: int, what: str) -> None:
        """Check the result of a call that waits on a synchronous id; signal handlers run meanwhile."""
        while rc == -EINTR:
            rc = lib.ffv_cm_wait(self._live())
        check(rc, what)

    # ---- what the id shows ------------------------------------------------------------------------

    @property
    def event_channel(self) -> CMEventChannel | None:
        """The channel of an asynchronous id."""
        return self._channel

    @property
    def context(self) -> Context | None:
        """The id's context, once it has a device; it is closed with the id."""
        if self._context is None and self._handle is not None and self._handle.verbs != ffi.NULL:
            self._context = Context(cmid=self)
        return self._context

    @property
    def pd(self) -> PD | None:
        """The caller's protection domain or the id's, once it has a device."""
        if self._pd is not None:
            return self._pd
        if self._shared_pd is None and self._handle is not None and self._handle.pd != ffi.NULL:
            self._shared_pd = PD(self)
        return self._shared_pd

    @property
    def dev_name(self) -> str:
        """Name of the device; PyverbsUserError before there is one."""
        if self._live().verbs == ffi.NULL:
            raise PyverbsUserError("The CMID has no device yet: bind it or resolve an address first")
        return "ffv0"

    @property
    def port_num(self) -> int:
        """The device's port."""
        return int(self._live().port_num)

    @property
    def qpn(self) -> int | None:
        """Number of the id's QP, None if it has none."""
        qp = self._live().qp
        return None if qp == ffi.NULL else int(lib.ffv_qp_num(qp))

    # ---- addresses ------------------------------------------------------------------------

    def bind_addr(self, lai: AddrInfo) -> None:
        """Bind the id to the source address of `lai`; port 0 chooses a free one."""
        info = typed("lai", lai, AddrInfo)._live()
        check(lib.ffv_cm_bind_addr(self._live(), info.src_addr), "Failed to Bind ID")

    def resolve_addr(self, rai: AddrInfo, timeout_ms: int = 2000) -> None:
        """Look for the destination of `rai`, from its source if it has one."""
        info = typed("rai", rai, AddrInfo)._live()
        rc = lib.ffv_cm_resolve_addr(self._live(), info.src_addr, info.dst_addr, check_int(timeout_ms))
        self._finish(rc, "Failed to Resolve Address")

    def resolve_route(self, timeout_ms: int = 2000) -> None:
        """Look for the way to the destination."""
        self._finish(lib.ffv_cm_resolve_route(self._live(), check_int(timeout_ms)), "Failed to Resolve Route")

    def resolve_addrinfo(
        self, node: str | None = None, service: str | None = None, port_space: int = 0, flags: int = 0
    ) -> None:
        """Resolve a name for this id; RDMA_CM_EVENT_ADDRINFO_RESOLVED tells the end. `flags` has RAI_DNS."""
        hints = new("cm_addrinfo", port_space=check_int(port_space), flags=check_int(flags))
        rc = lib.ffv_cm_resolve_addrinfo(self._live(), encoded("node", node), encoded("service", service), hints)
        self._finish(rc, "Failed to resolve address information")

    def query_addrinfo(self) -> AddrInfo:
        """Return what resolve_addrinfo() found."""
        out = ffi.new("struct ffv_cm_addrinfo **")
        check(lib.ffv_cm_query_addrinfo(self._live(), out), "Failed to query address information")
        return AddrInfo._of(out[0])

    # ---- connections ------------------------------------------------------------------------

    def listen(self, backlog: int = 0) -> None:
        """Take connect requests; at most `backlog` wait to be read (0: 1024)."""
        check(lib.ffv_cm_listen(self._live(), check_int(backlog)), "Listen Failed")

    def get_request(self) -> "CMID":
        """Wait for a connect request on a synchronous listening id, and return the id it made."""
        listener, out = self._live(), ffi.new("struct ffv_cm_id **")
        while (rc := lib.ffv_cm_get_request(listener, out)) == -EINTR:
            pass
        check(rc, "Failed to get request, no connection established")
        connection = CMID(pd=self._pd)
        connection._take(out[0], None)
        if self._pd is not None:
            self._pd._attach(connection, "qps")
        if listener.verbs == ffi.NULL:  # bound to all addresses: the request tells the device
            listener.verbs, listener.pd = out[0].verbs, out[0].pd
        return connection

    def connect(self, param: ConnParam | None = None) -> None:
        """Ask the listener at the destination for a connection."""
        self._finish(lib.ffv_cm_connect(self._live(), _param(param)), "Failed to Connect")

    def accept(self, param: ConnParam | None = None) -> None:
        """Accept the connect request that made this id."""
        self._finish(lib.ffv_cm_accept(self._live(), _param(param)), "Failed to Accept Connection")

    def reject(self, private_data: bytes | None = None) -> None:
        """Refuse the connect request that made this id; `private_data` goes along."""
        data = b"" if private_data is None else bytes(private_data)
        if len(data) > 0xFF:
            raise OverflowError("value too large to convert to uint8_t")
        check(lib.ffv_cm_reject(self._live(), data, len(data)), "Failed to Reject Connection")

    def establish(self) -> None:
        """Tell the peer that the external QP is ready, after RDMA_CM_EVENT_CONNECT_RESPONSE."""
        check(lib.ffv_cm_establish(self._live()), "Failed to Complete an active connection request")

    def disconnect(self) -> None:
        """End the connection, or agree to the peer's ending it; the QP goes to ERR."""
        self._finish(lib.ffv_cm_disconnect(self._live()), "Failed to Disconnect")

    def set_local_ece(self, ece: ECE) -> None:
        """Set the options to offer to the peer, before the id has a QP."""
        local = typed("ece", ece, ECE)
        offered = new("cm_ece", vendor_id=local.vendor_id, options=local.options, comp_mask=local.comp_mask)
        check(lib.ffv_cm_set_local_ece(self._live(), offered), "Failed to set local ECE")

    def get_remote_ece(self) -> ECE:
        """Return the options that the peer offered."""
        remote = new("cm_ece")
        check(lib.ffv_cm_get_remote_ece(self._live(), remote), "Failed to get remote ECE")
        return ECE(vendor_id=remote.vendor_id, options=remote.options, comp_mask=remote.comp_mask)

    def set_option(self, level: int, optname: int, optval: int, optlen: int) -> None:
        """Set an option of level RDMA_OPTION_ID: 0 TOS, 1 REUSEADDR, 2 AFONLY, 3 ACK_TIMEOUT (4.096 us * 2^value)."""
        level, optname, optlen = check_int(level), check_int(optname), check_int(optlen)
        layout = _OPTIONS.get(optname) if level == RDMA_OPTION_ID else None
        if layout is None:
            raise PyverbsUserError(
                f"There is no option {optname} of level {level}; an id has TOS, REUSEADDR, AFONLY and ACK_TIMEOUT"
            )
        try:
            value = struct.pack(layout, optval)
        except struct.error:
            raise OverflowError(f"value {optval} does not fit the option") from None
        check(lib.ffv_cm_set_option(self._live(), level, optname, value, optlen), "Failed to set option")

    # ---- multicast ------------------------------------------------------------------------

    def join_multicast(
        self, addr: AddrInfo | None = None, mc_attr: JoinMCAttrEx | None = None, context: int = 0
    ) -> None:
        """Join the group that the source of `addr`, or `mc_attr`, names; an event tells its address."""
        cookie = ffi.cast("void *", check_u64(context))
        if mc_attr is not None:
            attr = typed("mc_attr", mc_attr, JoinMCAttrEx)
            attr._addr._live()
            rc = lib.ffv_cm_join_multicast_ex(self._live(), attr._c, cookie)
        elif addr is not None:
            info = typed("addr", addr, AddrInfo)._live()
            rc = lib.ffv_cm_join_multicast(self._live(), info.src_addr, cookie)
        else:
            raise PyverbsUserError("Join to multicast must have AddrInfo or JoinMCAttrEx arguments")
        self._finish(rc, "Failed to Join multicast")

    def leave_multicast(self, addr: AddrInfo) -> None:
        """Leave the group that the source of `addr` names."""
        info = typed("addr", addr, AddrInfo)._live()
        check(lib.ffv_cm_leave_multicast(self._live(), info.src_addr), "Failed to leave multicast")

    # ---- the queue pair ------------------------------------------------------------------------

    def create_qp(self, qp_init: QPInitAttr) -> None:
        """Create the id's QP, with queues of its own unless `qp_init` names some; writes the granted sizes back."""
        attr = typed("qp_init", qp_init, QPInitAttr)
        domain = ffi.NULL if self._pd is None else self._pd._live()
        check(lib.ffv_cm_create_qp(self._live(), domain, attr._linked()), "Failed to Create QP")
        for queue in {id(q): q for q in (attr.send_cq, attr.recv_cq, attr.srq, self._pd)}.values():
            if isinstance(queue, Handle):
                queue._attach(self, "qps")

    def query_qp(self, attr_mask: int) -> tuple[QPAttr, QPInitAttr]:
        """Return at least the attributes in `attr_mask`, and those that the QP was made with."""
        attr, init_attr = QPAttr(), QPInitAttr()
        qp = self._live().qp
        check(lib.ffv_query_qp(qp, attr._c, check_u32(attr_mask), init_attr._c), "Failed to query QP")
        return attr, init_attr

    def init_qp_attr(self, qp_state: int) -> tuple[QPAttr, int]:
        """Return the attributes that the connection gives an external QP for a state, and their mask."""
        attr, mask = QPAttr(), ffi.new("uint32_t *")
        attr.qp_state = qp_state
        check(lib.ffv_cm_init_qp_attr(self._live(), attr._c, mask), "Failed to get QP attributes")
        return attr, int(mask[0])

    def _register(self, size: int, access: int) -> MR:
        domain = self.pd
        if domain is None:
            raise PyverbsUserError("The CMID has no protection domain yet: bind it or resolve an address first")
        return MR(domain, size, access)

    def reg_msgs(self, size: int) -> MR:
        """Register `size` bytes of new memory for sends and receives."""
        return self._register(size, IBV_ACCESS_LOCAL_WRITE)

    def reg_read(self, size: int = 0) -> MR:
        """Register `size` bytes of new memory that the peer may read."""
        return self._register(size, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ)

    def reg_write(self, size: int = 0) -> MR:
        """Register `size` bytes of new memory that the peer may write."""
        return self._register(size, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE)

    # ---- work requests ------------------------------------------------------------------------

    def post_recv(self, mr: MR, length: int | None = None) -> None:
        """Post the first `length` bytes of `mr` (None: all) to receive into."""
        where, room, region = _buffer(mr, length)
        check(lib.ffv_cm_post_recv(self._live(), ffi.NULL, where, room, region), "Failed to Post Receive")

    def post_send(self, mr: MR, flags: int = IBV_SEND_SIGNALED, length: int | None = None) -> None:
        """Send the first `length` bytes of `mr` (None: all)."""
        where, room, region = _buffer(mr, length)
        rc = lib.ffv_cm_post_send(self._live(), ffi.NULL, where, room, region, check_u32(flags))
        check(rc, "Failed to Post Send")

    def post_read(self, mr: MR, length: int, remote_addr: int, rkey: int, flags: int = 0) -> None:
        """Read `length` bytes from the peer's memory into `mr`."""
        self._post_rdma(lib.ffv_cm_post_read, mr, length, remote_addr, rkey, flags, "Failed to Post Read")

    def post_write(self, mr: MR, length: int, remote_addr: int, rkey: int, flags: int = 0) -> None:
        """Write the first `length` bytes of `mr` into the peer's memory."""
        self._post_rdma(lib.ffv_cm_post_write, mr, length, remote_addr, rkey, flags, "Failed to Post Write")

    def _post_rdma(self, post: Any, mr: MR, length: int, remote_addr: int, rkey: int, flags: int, what: str) -> None:
        where, room, region = _buffer(mr, length)
        rc = post(
            self._live(), ffi.NULL, where, room, region, check_u32(flags), check_u64(remote_addr), check_u32(rkey)
        )
        check(rc, what)

    def post_ud_send(
        self, mr: MR, ah: AH, rqpn: int = 0, flags: int = IBV_SEND_SIGNALED, length: int | None = None
    ) -> None:
        """Send the first `length` bytes of `mr` (None: all) to QP `rqpn` of a UD peer."""
        where, room, region = _buffer(mr, length)
        target = typed("ah", ah, AH)._live()
        rc = lib.ffv_cm_post_ud_send(
            self._live(), ffi.NULL, where, room, region, check_u32(flags), target, check_u32(rqpn)
        )
        check(rc, "Failed to Post Send")

    def get_recv_comp(self) -> WC | None:
        """Wait for a completion of a receive."""
        return self._completion(lib.ffv_cm_get_recv_comp, "Failed to retrieve receive completion")

    def get_send_comp(self) -> WC | None:
        """Wait for a completion of a send."""
        return self._completion(lib.ffv_cm_get_send_comp, "Failed to retrieve send completion")

    def _completion(self, wait: Any, what: str) -> WC | None:
        found, cm_id = new("wc"), self._live()
        while (rc := wait(cm_id, found)) == -EINTR:
            pass
        if rc < 0:
            raise_errno(-rc, what)
        return WC._of(found) if rc else None

    # ---- the end ------------------------------------------------------------------------

    def _destroy(self, handle: Any) -> None:
        shared = [owner for owner in (self._context, self._shared_pd) if owner is not None]
        for owner in shared:
            owner.close()
        if self._channel is not None:
            self._channel._ack_events(handle)
        check(lib.ffv_cm_destroy_ep(handle), "Failed to close CMID")
        self._context = self._shared_pd = self._pd = None


def _param(param: ConnParam | None) -> Any:
    return ffi.NULL if param is None else typed("param", param, ConnParam)._c


def _buffer(mr: MR, length: int | None) -> tuple[Any, int, Any]:
    """Return address, bytes and region of a work request."""
    region = typed("mr", mr, MR)._live()
    return region.addr, int(region.length) if length is None else check_u64(length), region
