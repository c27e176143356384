"""What the one suite runs on: a store that can be killed, paused and wiped, in memory or a real etcd."""

from typing import Protocol

from etcd_registry.client import EtcdClient
from etcd_registry.memory import MemoryEtcd, MemoryStore
from etcd_registry.store import Store
from tests.registry.servers import EtcdServer

TIMEOUT_S = 4.0


class Lab(Protocol):
    """A store and its switches. It is running at first."""

    def client(self) -> Store:
        """Return a new client; whoever asked for it closes it."""

    def kill(self) -> None: ...

    def start(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def wipe(self) -> None:
        """Let it lose everything, and run on."""

    def close(self) -> None: ...


class MemoryLab:
    """The store in memory."""

    def __init__(self) -> None:
        self.server = MemoryEtcd()

    def client(self) -> Store:
        return MemoryStore(self.server, timeout_s=TIMEOUT_S)

    def kill(self) -> None:
        self.server.stop()

    def start(self) -> None:
        self.server.start()

    def pause(self) -> None:
        self.server.stop()

    def resume(self) -> None:
        self.server.resume()

    def wipe(self) -> None:
        self.server.wipe()

    def close(self) -> None:
        pass


class EtcdLab(EtcdServer):
    """A real etcd."""

    def __init__(self) -> None:
        super().__init__()
        self.start()
        self.await_ready()

    def client(self) -> Store:
        return EtcdClient([self.address], timeout_s=TIMEOUT_S)


LABS: dict[str, type[MemoryLab] | type[EtcdLab]] = {"memory": MemoryLab, "etcd": EtcdLab}
