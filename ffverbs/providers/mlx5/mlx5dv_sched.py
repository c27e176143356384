"""QP scheduling of the mlx5 driver: importable, but of no use here."""

from ffverbs.providers._vendor import VendorObject


class Mlx5dvSchedAttr(VendorObject):
    """Attributes of a scheduling element."""

    __slots__ = ()


class Mlx5dvSchedNode(VendorObject):
    """A node of the scheduling tree."""

    __slots__ = ()


class Mlx5dvSchedLeaf(VendorObject):
    """A leaf of the scheduling tree."""

    __slots__ = ()
