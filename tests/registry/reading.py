"""Reading watches and waiting for what must come, with deadlines that only detect hangs."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from etcd_registry.store import Changes, Cut, KeyValue, Resumed, Snapshot, Store, WatchItem

HANG_S = 30.0


class Reader:
    """Reads a watch in a task: what is there as a map, and every item that came."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._news = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self.items: list[WatchItem] = []
        self.map: dict[str, bytes] = {}
        self.puts: list[tuple[str, bytes]] = []
        self.error: Exception | None = None

    async def __aenter__(self) -> "Reader":
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async with contextlib.aclosing(self._store.watch_prefix(self._prefix)) as watch:
                async for item in watch:
                    self._take(item)
                    async with self._news:
                        self._news.notify_all()
        except Exception as error:
            self.error = error
        async with self._news:
            self._news.notify_all()

    def _take(self, item: WatchItem) -> None:
        self.items.append(item)
        if isinstance(item, Snapshot):
            self.map = {kv.key: kv.value for kv in item.items}
        elif isinstance(item, Changes):
            for event in item.events:
                if isinstance(event, KeyValue):
                    self.map[event.key] = event.value
                    self.puts.append((event.key, event.value))
                else:
                    self.map.pop(event, None)

    async def until(self, true: Callable[["Reader"], bool], within_s: float = HANG_S) -> None:
        """Wait for something to be true of what was read."""
        async with asyncio.timeout(within_s), self._news:
            await self._news.wait_for(lambda: true(self) or (self.ended and self.error is not None))
        if self.error and not true(self):
            raise self.error

    @property
    def ended(self) -> bool:
        assert self._task
        return self.error is not None or self._task.done()

    def count(self, kind: type[WatchItem]) -> int:
        return sum(isinstance(item, kind) for item in self.items)

    @property
    def resumed(self) -> int:
        return self.count(Resumed)

    @property
    def cuts(self) -> int:
        return self.count(Cut)

    @property
    def snapshots(self) -> int:
        return self.count(Snapshot)


@contextlib.asynccontextmanager
async def closing(*stores: Store) -> AsyncGenerator[tuple[Store, ...], None]:
    """Close the stores at the end."""
    try:
        yield stores
    finally:
        for store in stores:
            await store.close()


async def eventually(true: Callable[[], bool], within_s: float = HANG_S) -> None:
    """Wait for something to be true that nobody can announce."""
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.01)
