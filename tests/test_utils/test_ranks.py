"""Work shared by two ranks comes in the order of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from two_ranks import on_two_ranks

from omh_mmseg.utils.ranks import from_first, in_turn, on_first


@pytest.mark.parametrize('count', [0, 1, 4, 5])
def test_parts_come_to_the_first_rank_in_their_order(tmp_path: Path, count: int) -> None:
    def work(rank: int) -> list[int]:
        return list(on_first(iter(range(rank, count, 2)), count))

    assert on_two_ranks(work, tmp_path) == [list(range(count)), []]
    assert list(on_first(iter(range(count)), count)) == list(range(count))


@pytest.mark.parametrize('counts', [(3, 2), (2, 2), (0, 3)])
def test_ranks_take_turns(tmp_path: Path, counts: tuple[int, int]) -> None:
    def work(rank: int) -> None:
        for part in in_turn(range(counts[rank])):
            with open(tmp_path / 'log', 'a') as log:
                log.write(f'{rank}{part} ')

    on_two_ranks(work, tmp_path)
    expected = sorted((part, rank) for rank in range(2) for part in range(counts[rank]))
    assert (tmp_path / 'log').read_text().split() == [f'{rank}{part}' for part, rank in expected]
    assert list(in_turn('ab')) == ['a', 'b']


def test_the_first_rank_decides_for_all(tmp_path: Path) -> None:
    def work(rank: int) -> tuple[int, str]:
        def fail() -> None:
            raise FileExistsError(f'seen by {rank}')

        decided = from_first(lambda: rank + 5)
        try:
            from_first(fail)
        except FileExistsError as error:
            return decided, str(error)
        return decided, 'nothing'

    assert on_two_ranks(work, tmp_path) == [(5, 'seen by 0')] * 2
    assert from_first(lambda: 7) == 7
