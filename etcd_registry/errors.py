"""Errors of the registry. Each text says what was asked, what is wrong, and what to do."""

__all__ = [
    "AddressInUseError",
    "AlienRecordError",
    "LeaseLostError",
    "PoolError",
    "RegistryDeniedError",
    "RegistryError",
    "RegistryUnavailableError",
    "RegistryUrlError",
    "StaticFileError",
]


class RegistryError(Exception):
    """Base of all errors of this package."""


class RegistryUrlError(RegistryError):
    """A registry URL, or a file that it names, cannot be used."""


class RegistryUnavailableError(RegistryError):
    """No endpoint answered within the deadline. A write that ended so may have been carried out all the same."""


class RegistryDeniedError(RegistryError):
    """The store wants credentials, or refuses those it got."""


class LeaseLostError(RegistryError):
    """The lease has ended: every key under it is gone."""


class AddressInUseError(RegistryError):
    """Another live owner holds the name or address. `holder` says who, in words."""

    def __init__(self, what: str, holder: str, advice: str) -> None:
        super().__init__(f"{what}: it is held by {holder}; {advice}")
        self.holder = holder


class PoolError(RegistryError):
    """The pool cannot give an address: it is malformed, too small, or all of it is in use."""


class AlienRecordError(RegistryError):
    """A value is no record that this version understands."""


class StaticFileError(RegistryError):
    """The file of a static registry is missing, malformed, stale, or says otherwise than the host."""
