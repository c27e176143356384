"""Direct rule domains of the mlx5 driver: importable, but of no use here."""

from ffverbs.providers._vendor import VendorObject


class DrDomain(VendorObject):
    """A domain of direct rules."""

    __slots__ = ()
