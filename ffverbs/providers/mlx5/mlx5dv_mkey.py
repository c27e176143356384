"""Memory keys of the mlx5 driver: importable, but of no use here."""

from ffverbs.providers._vendor import VendorObject


class Mlx5MkeyConfAttr(VendorObject):
    """Configuration of a memory key."""

    __slots__ = ()


class Mlx5MrInterleaved(VendorObject):
    """Interleaved layout of a memory key."""

    __slots__ = ()


class Mlx5Mkey(VendorObject):
    """A memory key."""

    __slots__ = ()


class Mlx5SigCrc(VendorObject):
    """CRC signature."""

    __slots__ = ()


class Mlx5SigT10Dif(VendorObject):
    """T10-DIF signature."""

    __slots__ = ()


class Mlx5SigBlockDomain(VendorObject):
    """Signature domain of a block."""

    __slots__ = ()


class Mlx5SigBlockAttr(VendorObject):
    """Signature attributes of a block."""

    __slots__ = ()


class Mlx5SigErr(VendorObject):
    """A signature error."""

    __slots__ = ()


class Mlx5MkeyErr(VendorObject):
    """An error of a memory key."""

    __slots__ = ()
