"""Direct rule tables of the mlx5 driver: importable, but of no use here."""

from ffverbs.providers._vendor import VendorObject


class DrTable(VendorObject):
    """A table of direct rules."""

    __slots__ = ()
