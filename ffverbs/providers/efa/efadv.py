"""Objects of the efa driver: importable, but of no use on this package's devices."""

from ffverbs.providers._vendor import VendorObject, refuse


class EfaContext(VendorObject):
    """An efa context."""

    __slots__ = ()


class EfaDVDeviceAttr(VendorObject):
    """Attributes of an efa device."""

    __slots__ = ()


class EfaDVAHAttr(VendorObject):
    """Attributes of an efa address handle."""

    __slots__ = ()


class EfaAH(VendorObject):
    """An efa address handle."""

    __slots__ = ()


class SRDQP(VendorObject):
    """A scalable reliable datagram QP."""

    __slots__ = ()


class EfaQPInitAttr(VendorObject):
    """efa attributes at the creation of a QP."""

    __slots__ = ()


class SRDQPEx(SRDQP):
    """A scalable reliable datagram QP with the extended interface."""

    __slots__ = ()


class EfaDVCQInitAttr(VendorObject):
    """efa attributes at the creation of a CQ."""

    __slots__ = ()


class EfaCQ(VendorObject):
    """A CQ with the attributes of efa."""

    __slots__ = ()


bitmask_to_str = refuse
dev_cap_to_str = refuse
