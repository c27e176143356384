"""Direct rule matchers of the mlx5 driver: importable, but of no use here."""

from ffverbs.providers._vendor import VendorObject


class DrMatcher(VendorObject):
    """A matcher of direct rules."""

    __slots__ = ()
