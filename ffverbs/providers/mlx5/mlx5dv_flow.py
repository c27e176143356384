"""Flow steering of the mlx5 driver: importable, but of no use here."""

from ffverbs.providers._vendor import VendorObject


class Mlx5FlowMatchParameters(VendorObject):
    """What a flow matches."""

    __slots__ = ()


class Mlx5FlowMatcherAttr(VendorObject):
    """Attributes of a flow matcher."""

    __slots__ = ()


class Mlx5FlowMatcher(VendorObject):
    """A flow matcher."""

    __slots__ = ()


class Mlx5FlowActionAttr(VendorObject):
    """An action of a flow."""

    __slots__ = ()


class Mlx5Flow(VendorObject):
    """A flow."""

    __slots__ = ()


class Mlx5PacketReformatFlowAction(VendorObject):
    """A packet reformatting action."""

    __slots__ = ()
