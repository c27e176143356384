"""Direct rule rules of the mlx5 driver: importable, but of no use here."""

from ffverbs.providers._vendor import VendorObject


class DrRule(VendorObject):
    """A direct rule."""

    __slots__ = ()
