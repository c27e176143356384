"""Direct rule actions of the mlx5 driver: importable, but of no use here."""

from typing import Final

from ffverbs.providers._vendor import VendorObject

ACTION_SIZE: Final = 8  # bytes of one modification of a header


class DrAction(VendorObject):
    """An action of a direct rule."""

    __slots__ = ()


class DrActionQp(DrAction):
    """Deliver to a QP."""

    __slots__ = ()


class DrActionModify(DrAction):
    """Modify a header."""

    __slots__ = ()


class DrActionFlowCounter(DrAction):
    """Count."""

    __slots__ = ()


class DrActionDrop(DrAction):
    """Drop."""

    __slots__ = ()


class DrActionTag(DrAction):
    """Tag."""

    __slots__ = ()


class DrActionDestTable(DrAction):
    """Go on in a table."""

    __slots__ = ()


class DrActionPopVLan(DrAction):
    """Remove a VLAN header."""

    __slots__ = ()


class DrActionPushVLan(DrAction):
    """Add a VLAN header."""

    __slots__ = ()


class DrActionDestAttr(VendorObject):
    """A destination of an array."""

    __slots__ = ()


class DrActionDestArray(DrAction):
    """Deliver to several destinations."""

    __slots__ = ()


class DrActionDefMiss(DrAction):
    """Treat as a miss."""

    __slots__ = ()


class DrActionVPort(DrAction):
    """Deliver to a virtual port."""

    __slots__ = ()


class DrActionIBPort(DrAction):
    """Deliver to a port."""

    __slots__ = ()


class DrActionDestTir(DrAction):
    """Deliver to a transport interface receive object."""

    __slots__ = ()


class DrActionPacketReformat(DrAction):
    """Reformat."""

    __slots__ = ()


class DrFlowSamplerAttr(VendorObject):
    """Attributes of a flow sampler."""

    __slots__ = ()


class DrActionFlowSample(DrAction):
    """Sample."""

    __slots__ = ()
