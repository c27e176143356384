"""Tests of the registry are coroutines, each in a loop of its own that must be empty when it ends."""

import asyncio
import inspect
from collections.abc import Iterator

import pytest

from tests.registry.labs import LABS, Lab


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine; it fails if it leaves a task behind."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def run() -> None:
        await pyfuncitem.obj(**arguments)
        # grpc ends the task of a call that was given up a moment later.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            _, left = await asyncio.wait(left, timeout=5)
        assert not left, f"the test has left tasks behind: {left}"

    asyncio.run(run())
    return True


@pytest.fixture(name="lab", params=LABS)
def lab_fixture(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The one suite's store: in memory, and etcd."""
    lab: Lab = LABS[request.param]()
    yield lab
    lab.close()
