"""What the Python interface adds to the engine, beside empty cffi calls.

python -m benchmarks.python_calls

Prints one JSON object, of this process's processor time, each the least of many batches: `empty_call_ns`, a cffi call
that does next to nothing; `post_poll_ns`, post_send of a WRITE of 8 B and the poll of its completion;
`list_message_ns`, the same by lists of LIST requests and poll(LIST), with the status of every completion read.
"""

import json
import time
from collections.abc import Callable
from typing import Any, Final

from benchmarks.micro.ends import make_pair
from ffverbs._native import lib
from ffverbs.libibverbs_enums import IBV_WC_SUCCESS

LIST: Final = 64
CALLS: Final = 6400
BATCHES: Final = 60


def _least(body: Callable[[], None], calls: int) -> float:
    """Return the least ns a call of `body`, which makes `calls`."""
    least = float("inf")
    for _ in range(BATCHES):
        began = time.thread_time_ns()
        body()
        least = min(least, (time.thread_time_ns() - began) / calls)
    return least


def main() -> None:
    """Measure and print."""
    pair = make_pair()
    post, poll, one, chain = pair.sender.post_send, pair.here.cq.poll, pair.write(8), pair.writes(LIST)
    call: Any = lib.ffv_cq_cqe
    handle = pair.here.cq._handle

    def nothing() -> None:
        for _ in range(CALLS):
            pass

    def empty() -> None:
        for _ in range(CALLS):
            call(handle)

    def single() -> None:
        for _ in range(CALLS):
            post(one)
            if poll()[0] != 1:
                raise SystemExit("no completion")

    def lists() -> None:
        for _ in range(CALLS // LIST):
            post(chain)
            count, found = poll(LIST)
            if count != LIST or any(wc.status != IBV_WC_SUCCESS for wc in found):
                raise SystemExit("completions are missing")

    loop_ns = _least(nothing, CALLS)
    result = {
        "empty_call_ns": _least(empty, CALLS) - loop_ns,
        "post_poll_ns": _least(single, CALLS) - loop_ns,
        "list_message_ns": _least(lists, CALLS),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
