"""Crypto offload of the mlx5 driver: importable, but of no use here."""

from ffverbs.providers._vendor import VendorObject


class Mlx5CryptoLoginAttr(VendorObject):
    """Credentials of a crypto session."""

    __slots__ = ()


class Mlx5CryptoExtLoginAttr(VendorObject):
    """Extended credentials of a crypto session."""

    __slots__ = ()


class Mlx5CryptoLogin(VendorObject):
    """A crypto session."""

    __slots__ = ()


class Mlx5DEKInitAttr(VendorObject):
    """Attributes at the creation of a data encryption key."""

    __slots__ = ()


class Mlx5DEKAttr(VendorObject):
    """Attributes of a data encryption key."""

    __slots__ = ()


class Mlx5DEK(VendorObject):
    """A data encryption key."""

    __slots__ = ()


class Mlx5CryptoAttr(VendorObject):
    """Crypto attributes of a memory key."""

    __slots__ = ()
