"""Many queue pairs between many containers of three hosts: the short form of `python -m tests.lab.many`."""

import pytest

from tests.lab.many import run
from tests.lab.network import unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=f"no networks on this host: {unavailable()}")


def test_many_share_a_connection_fairly() -> None:
    figures = run(hosts=3, containers=6, queue_pairs=120, seconds=3.0, settles=False)
    assert set(figures.connections.values()) == {2}  # to each of the two others
    # Of one host: how much the machine gives each of the hosts is its own business.
    assert min(figures.slowest_to_mean_by_host.values()) >= 0.5, figures


def test_one_at_rest_takes_about_a_kibibyte() -> None:
    figures = run(hosts=3, containers=6, queue_pairs=6000, seconds=0.1)
    # 900 to 970; a busy machine's heap is more scattered, to 1024. It was 3 to 4 KiB when everything was kept.
    assert max(figures.bytes_idle.values()) < 1280, figures
    assert min(figures.bytes_idle.values()) > 512, figures  # it was measured
