"""A team of threads: results in order, errors told, nobody left behind, torch's threads as before."""

import threading
from collections.abc import Iterator

import pytest
import torch

from napari_unet.engine.team import AHEAD, Team


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def members() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("napari-unet-tile")]


def test_results_come_in_order(threads: int) -> None:
    waits = [threading.Event() for _ in range(3)]

    def work(i: int) -> int:
        if threads == 3 and i < 3:  # the first three end in the opposite order
            assert i == 2 or waits[i + 1].wait(60)
            waits[i].set()
        return i * i

    with Team() as team:
        assert list(team.each(work, range(10))) == [i * i for i in range(10)]


def test_each_member_has_a_torch_of_one_thread(threads: int) -> None:
    with Team() as team:
        assert set(team.each(lambda _: torch.get_num_threads(), range(10))) == {1}
    assert torch.get_num_threads() == threads
    found: list[int] = []
    new = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    new.start()
    new.join()
    assert found == [threads]


def test_an_error_is_raised_in_its_turn(threads: int) -> None:
    seen = []
    with pytest.raises(ZeroDivisionError), Team() as team:  # noqa: PT012
        for result in team.each(lambda i: 6 // i, (3, 2, 0, 1)):
            seen.append(result)
    assert seen == [2, 3]
    assert not members()


def test_who_stops_early_leaves_nobody_behind(threads: int) -> None:
    begun: list[int] = []

    def results() -> Iterator[None]:
        with Team() as team:
            yield from team.each(begun.append, range(1000))

    going = results()
    next(going)
    going.close()
    assert 1 <= len(begun) <= 1 + AHEAD * threads
    assert not members()
    assert torch.get_num_threads() == threads
