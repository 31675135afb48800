from __future__ import annotations

import asyncio

import pytest

from deployments.gate import PriorityGate


async def test_the_smallest_rank_enters_next() -> None:
    gate = PriorityGate(1)
    entered: list[tuple[int, int]] = []
    ranks = [(-1, 1), (0, 2), (-3, 3), (-1, 0)]

    async def visit(rank: tuple[int, int]) -> None:
        async with gate.slot(rank):
            entered.append(rank)

    async with gate.slot((0, 0)):
        visits = [asyncio.create_task(visit(rank)) for rank in ranks]
        await asyncio.sleep(0)
        assert entered == []
    await asyncio.gather(*visits)
    assert entered == sorted(ranks)
    assert gate.free == 1


async def test_slots_are_counted() -> None:
    gate = PriorityGate(2)
    async with gate.slot((0, 1)), gate.slot((0, 2)):
        assert gate.free == 0
    assert gate.free == 2


async def test_a_waiter_that_gives_up_takes_no_slot() -> None:
    gate = PriorityGate(1)

    async def visit() -> None:
        async with gate.slot((0, 1)):
            pytest.fail("never its turn")

    async with gate.slot((0, 0)):
        waiter = asyncio.create_task(visit())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
    assert gate.free == 1


async def test_a_slot_handed_to_a_cancelled_waiter_is_passed_on() -> None:
    gate = PriorityGate(1)
    entered: list[int] = []

    async def visit(number: int) -> None:
        async with gate.slot((0, number)):
            entered.append(number)

    async with gate.slot((0, 0)):
        first, second = asyncio.create_task(visit(1)), asyncio.create_task(visit(2))
        await asyncio.sleep(0)
    first.cancel()  # after the slot was handed over, before it could run
    await asyncio.gather(first, second, return_exceptions=True)
    assert entered == [2]
    assert gate.free == 1


async def test_an_error_inside_gives_the_slot_back() -> None:
    gate = PriorityGate(1)
    with pytest.raises(ZeroDivisionError):
        async with gate.slot((0, 0)):
            raise ZeroDivisionError
    assert gate.free == 1
