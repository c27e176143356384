"""Flow steering (pyverbs.flow): which raw packets come to which queue pair."""

from typing import Any

from ffverbs._cint import check_u8, check_u16, check_u32
from ffverbs._native import ffi, lib
from ffverbs._struct import NumberEnum, NumberField, typed
from ffverbs.base import Handle, PyverbsObject, check
from ffverbs.libibverbs_enums import IBV_FLOW_ATTR_NORMAL, ibv_flow_attr_type
from ffverbs.pyverbs_error import PyverbsError
from ffverbs.qp import QP
from ffverbs.spec import Spec

__all__ = ["Flow", "FlowAction", "FlowAttr"]


class FlowAttr(PyverbsObject):
    """Attributes of a flow."""

    __slots__ = ("_flags", "_num_of_specs", "_port", "_priority", "_specs", "_type")

    def __init__(
        self,
        num_of_specs: int = 0,
        flow_type: int = IBV_FLOW_ATTR_NORMAL,
        priority: int = 0,
        port: int = 1,
        flags: int = 0,
    ) -> None:
        self.num_of_specs = num_of_specs
        self.type = flow_type
        self.priority = priority
        self.port = port
        self.flags = flags
        self._specs: list[Spec] = []

    type = NumberEnum("type", ibv_flow_attr_type, "Normal, sniffer, default, ...")
    priority = NumberField("priority", check_u16, "Which flow comes first.")
    num_of_specs = NumberField("num_of_specs", check_u8, "How many specifications count.")
    port = NumberField("port", check_u8, "The local port.")
    flags = NumberField("flags", check_u32, "Mask of ibv_flow_flags.")

    @property
    def specs(self) -> list[Spec]:
        """What packets must look like: append to this list."""
        return self._specs

    def _packed(self) -> Any:
        """The attributes with the specifications behind them, as the engine takes them."""
        if len(self._specs) != self.num_of_specs:
            raise PyverbsError(f"num_of_specs is {self.num_of_specs}, but {len(self._specs)} specs were appended")
        head = ffi.sizeof("struct ffv_flow_attr")
        size = head + sum(typed("specs", spec, Spec).size for spec in self._specs)
        # Words, so that the attributes at its beginning are aligned.
        buffer = ffi.new("uint64_t[]", (size + 7) // 8)
        attr = ffi.cast("struct ffv_flow_attr *", buffer)
        attr.type, attr.size, attr.priority, attr.port = int(self.type), check_u16(size), self.priority, self.port
        attr.num_of_specs, attr.flags = self.num_of_specs, self.flags
        place = int(ffi.cast("uintptr_t", buffer)) + head
        for spec in self._specs:
            spec._copy_data(place)
            place += spec.size
        return buffer


class Flow(Handle):
    """A rule that steers packets to a QP, until it is closed."""

    __slots__ = ()

    def __init__(self, qp: QP, flow_attr: FlowAttr) -> None:
        queue_pair = typed("qp", qp, QP)
        packed = typed("flow_attr", flow_attr, FlowAttr)._packed()
        out = ffi.new("struct ffv_flow **")
        attr = ffi.cast("struct ffv_flow_attr *", packed)
        check(lib.ffv_create_flow(queue_pair._live(), attr, out), "Flow creation failed")
        self._open(out[0])
        queue_pair._attach(self, "flows")

    def _destroy(self, handle: Any) -> None:
        check(lib.ffv_destroy_flow(handle), "Failed to destroy Flow")


class FlowAction(PyverbsObject):
    """Base of what a flow may do to packets: there is nothing."""

    __slots__ = ()
