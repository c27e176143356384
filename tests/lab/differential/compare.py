"""Compares what a sequence did on two devices: the first thing in which they differ, told so that it can be judged."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Call = dict[str, Any]
Outcome = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """One thing that the two runs did differently."""

    seed: int
    kind: str  # result, completion, missing, extra, state, memory, event
    index: int  # of the call that it belongs to, -1: to the sequence as a whole
    call: Call  # that call, {} without
    what: str  # which work request, queue pair or region
    ours: Any
    theirs: Any

    def __str__(self) -> str:
        where = f"seed {self.seed}, call {self.index}: {self.kind} {self.what}"
        return f"{where}: ours {self.ours}, theirs {self.theirs}\n  {self.call}"


def call_of(sequence: Call, wr_id: int) -> tuple[int, Call]:
    """Return the call that posted a work request, and its place."""
    for index, call in enumerate(sequence["calls"]):
        if any(wr["id"] == wr_id for wr in call.get("wrs", ())):
            return index, call
    return -1, {}


def results(sequence: Call, ours: Outcome, theirs: Outcome) -> Iterator[Difference]:
    """Compare what each call returned or raised."""
    for index, call in enumerate(sequence["calls"]):
        a, b = ours["results"][index], theirs["results"][index]
        if a != b:
            yield Difference(sequence["seed"], "result", index, call, call["do"], a, b)


def without_time(completion: dict[str, Any] | None) -> dict[str, Any]:
    """Return a completion without the call during which it came."""
    return {field: value for field, value in (completion or {}).items() if field != "at"}


def completions(sequence: Call, ours: Outcome, theirs: Outcome) -> Iterator[Difference]:
    """Compare the completions of each queue, in their order."""
    for stream in sorted(set(ours["streams"]) | set(theirs["streams"])):
        a, b = ours["streams"].get(stream, []), theirs["streams"].get(stream, [])
        for place in range(max(len(a), len(b))):
            mine, other = a[place] if place < len(a) else None, b[place] if place < len(b) else None
            if without_time(mine) == without_time(other):
                continue
            # It belongs to the call that brought it about, which may be a later one than that which posted it.
            index = min(completion["at"] for completion in (mine, other) if completion)
            _, call = call_of(sequence, (mine or other or {})["wr_id"])
            kind = "completion" if mine and other else "missing" if other else "extra"
            yield Difference(sequence["seed"], kind, index, call, stream, mine, other)
            break


def masked(name: str, text: str, undefined: list[list[Any]]) -> bytes:
    """Return a region's content with zeros where nobody promises anything."""
    content = bytearray.fromhex(text)
    for region, offset, length in undefined:
        if region == name:
            end = min(max(offset, 0) + length, len(content))
            content[max(offset, 0) : end] = bytes(max(end - max(offset, 0), 0))
    return bytes(content)


def memory(sequence: Call, ours: Outcome, theirs: Outcome) -> Iterator[Difference]:
    """Compare the regions, but for what failed operations and headers of datagrams left in them."""
    undefined = ours["undefined"] + theirs["undefined"]
    for name in sorted(set(ours["memory"]) & set(theirs["memory"])):
        a, b = (masked(name, run["memory"][name], undefined) for run in (ours, theirs))
        if a != b:
            first = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
            span = slice(first, first + 16)
            yield Difference(sequence["seed"], "memory", -1, {}, f"{name}+{first}", a[span].hex(), b[span].hex())


def events(sequence: Call, ours: Outcome, theirs: Outcome) -> Iterator[Difference]:
    """Compare the types of the asynchronous events, one by one."""
    a: Counter[int] = Counter(ours["events"])
    b: Counter[int] = Counter(theirs["events"])
    for kind in sorted((a | b) - (a & b)):
        yield Difference(sequence["seed"], "event", -1, {}, str(kind), a[kind], b[kind])


def differences(sequence: Call, ours: Outcome, theirs: Outcome) -> list[Difference]:
    """Return all differences, in the order of the calls that they belong to."""
    found = [*results(sequence, ours, theirs), *completions(sequence, ours, theirs)]
    found.sort(key=lambda difference: difference.index)
    for name in sorted(set(ours["states"]) | set(theirs["states"])):
        a, b = ours["states"].get(name), theirs["states"].get(name)
        if a != b:
            found.append(Difference(sequence["seed"], "state", -1, {}, name, a, b))
    return [*found, *memory(sequence, ours, theirs), *events(sequence, ours, theirs)]
