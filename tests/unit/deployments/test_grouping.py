from __future__ import annotations

import asyncio

import pytest

from deployments.grouping import Grouping


class Doubler:
    """Doubles numbers when it may, and notes how they came."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.may_answer = asyncio.Event()

    async def call(self, numbers: list[int]) -> list[int | Exception]:
        self.groups.append(numbers)
        await self.may_answer.wait()
        return [ValueError(number) if number < 0 else 2 * number for number in numbers]


async def test_what_comes_meanwhile_goes_together() -> None:
    doubler = Doubler()
    group: Grouping[int, int] = Grouping(doubler.call, 3)
    first = asyncio.create_task(group(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(group(number)) for number in (2, 3, 4, 5)]
    await asyncio.sleep(0)
    doubler.may_answer.set()
    assert await asyncio.gather(first, *others) == [2, 4, 6, 8, 10]
    assert doubler.groups == [[1], [2, 3, 4], [5]]


async def test_each_gets_its_own_error() -> None:
    doubler = Doubler()
    doubler.may_answer.set()
    group: Grouping[int, int] = Grouping(doubler.call, 10)
    good, bad = await asyncio.gather(group(1), group(-1), return_exceptions=True)
    assert good == 2
    assert isinstance(bad, ValueError)


async def test_a_failed_call_is_told_to_all_and_the_next_goes_on() -> None:
    calls = 0

    async def call(numbers: list[int]) -> list[int | Exception]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("away")
        return list(numbers)

    group: Grouping[int, int] = Grouping(call, 10)
    failed = await asyncio.gather(group(1), group(2), return_exceptions=True)
    assert [type(one) for one in failed] == [OSError, OSError]
    assert await group(3) == 3


async def test_a_caller_that_hangs_up_takes_no_answer_along() -> None:
    doubler = Doubler()
    group: Grouping[int, int] = Grouping(doubler.call, 10)
    first = asyncio.create_task(group(1))
    await asyncio.sleep(0)
    others = [asyncio.create_task(group(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    first.cancel()
    doubler.may_answer.set()
    async with asyncio.timeout(30):
        assert await asyncio.gather(*others) == [4, 6]
    with pytest.raises(asyncio.CancelledError):
        await first
