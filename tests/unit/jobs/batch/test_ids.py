from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.batch.ids import IdSet
from jobs.batch.intake import take_in
from jobs.batch.manifest import COMPLETED, Entry, Manifest
from jobs.batch.reading import Record
from jobs.batch.rows import Row
from jobs.batch.storage import Storage

_MIB = 2**20


def row_id(number: int) -> str:
    return f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}" * 2


def test_it_answers_as_a_set_does() -> None:
    chance = random.Random(7)
    plain: set[str] = set()
    with IdSet() as ids:
        for _ in range(2000):
            one = row_id(chance.randrange(1000))
            assert ids.add(one) == (one not in plain)
            plain.add(one)
        ids.update(row_id(number) for number in range(990, 1010))
        assert len(ids) == len(plain | {row_id(number) for number in range(990, 1010)})
        assert row_id(1009) in ids
        assert row_id(1010) not in ids


def test_ids_take_a_third_of_a_python_set_and_no_more_than_its_pages() -> None:
    process = psutil.Process()
    with IdSet() as ids:
        ids.update(row_id(number) for number in range(20_000))
        before = process.memory_info().rss
        ids.update(row_id(number) for number in range(20_000, 200_000))
        grown = (process.memory_info().rss - before) / _MIB
        assert len(ids) == 200_000
        ids.update(row_id(number) for number in range(200_000))  # the same: nothing is added
        assert len(ids) == 200_000
    # Some 30 bytes each; a Python set of as many takes 17 MiB and more.
    assert grown < 10


class PlainChecker:
    """Every record is a row: what is measured is what stands around the checks."""

    def check(self, record: Record) -> Row:
        return Row(row_id(record.index), record.index, "own", "a chair", None, None, {})


def records(count: int) -> Iterator[Record]:
    for number in range(count):
        yield Record(number, {})


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def test_the_driver_reads_and_joins_in_memory_that_does_not_grow(storage: Storage) -> None:
    """Five times the rows, the same memory: of Python's own objects, to the last one."""
    peaks = []
    for count in (1_000, 5_000):
        tracemalloc.start()
        checker: Any = PlainChecker()
        work = take_in(records(count), checker, storage, max_part_rows=100)
        peaks.append(tracemalloc.get_traced_memory()[1] / _MIB)
        tracemalloc.stop()
        assert work.rows == count
    assert peaks[1] < peaks[0] + 0.5
    manifest = Manifest(storage)
    for begin in range(0, 20_000, 1_000):
        manifest.add([Entry(row_id(begin + n), n, COMPLETED) for n in range(1_000)])
    manifest.add([Entry(row_id(n), n, COMPLETED) for n in range(500)])  # done twice
    assert manifest.join() == {COMPLETED: 20_000, "failed": 0}
