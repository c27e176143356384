"""Driver-level views of mlx5 objects: importable, but of no use here."""

from ffverbs.providers._vendor import VendorObject, refuse


class Mlx5DvPD(VendorObject):
    """Driver view of a PD."""

    __slots__ = ()


class Mlx5DvCQ(VendorObject):
    """Driver view of a CQ."""

    __slots__ = ()


class Mlx5DvQP(VendorObject):
    """Driver view of a QP."""

    __slots__ = ()


class Mlx5DvSRQ(VendorObject):
    """Driver view of an SRQ."""

    __slots__ = ()


class Mlx5DvObj(VendorObject):
    """Driver views of several objects."""

    __slots__ = ()

    init_obj = refuse
