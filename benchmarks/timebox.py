"""How long a benchmark may go on: on a busy machine repetitions are left out, not the first of anything."""

import argparse
import time


class TimeBox:
    """Begins when it is made; `minutes` None never ends."""

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    def is_spent(self) -> bool:
        """Tell whether the time is over."""
        return self._end is not None and time.monotonic() >= self._end


def add_option(parser: argparse.ArgumentParser, minutes: float | None) -> None:
    """Give a benchmark the option that limits it."""
    shown = "no limit" if minutes is None else f"{minutes:g}"
    parser.add_argument(
        "--minutes",
        type=float,
        default=minutes,
        help=f"leave out further repetitions after so long; everything is measured once (default {shown})",
    )
