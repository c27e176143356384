"""Whether registered memory is safe from fork().

Registered memory of this engine is shared with a fork child instead of copied: the parent and its peers go on as if
nothing had happened, whether or not anyone asked for it. The child has no business in that memory, which is the rule
of `ibv_fork_init()` too. So the answer is `IBV_FORK_ENABLED` at all times, never `IBV_FORK_UNNEEDED`, which would
promise the child a private copy.
"""

from ffverbs.libibverbs_enums import ibv_fork_status

__all__ = ["fork_init", "is_fork_initialized"]


def fork_init() -> None:
    """Ask for registered memory to be safe from fork(); it always is, so this may be called at any time."""


def is_fork_initialized() -> ibv_fork_status:
    """Return IBV_FORK_ENABLED: registered memory is safe, and a fork child must not touch it."""
    return ibv_fork_status.IBV_FORK_ENABLED
