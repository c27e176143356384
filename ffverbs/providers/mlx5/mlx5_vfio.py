"""mlx5 through VFIO: importable, but of no use here."""

from ffverbs.providers._vendor import VendorObject


class Mlx5VfioAttr(VendorObject):
    """How a device is opened through VFIO."""

    __slots__ = ()


class Mlx5VfioContext(VendorObject):
    """A context opened through VFIO."""

    __slots__ = ()
