from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from deployments.starting import until_begun


@dataclass
class Run:
    level: int
    has_slot: bool = True
    begun: asyncio.Event = field(default_factory=asyncio.Event)


async def _is_waiting(task: asyncio.Task[None]) -> bool:
    for _ in range(5):  # every coroutine that can go on has gone on
        await asyncio.sleep(0)
    return not task.done()


async def test_an_urgent_job_waits_for_what_is_on_its_way() -> None:
    low, normal = Run(0), Run(1)
    accepting = asyncio.create_task(until_begun([low, normal], 3))
    assert await _is_waiting(accepting)
    low.begun.set()
    assert await _is_waiting(accepting)
    normal.begun.set()
    assert not await _is_waiting(accepting)


async def test_others_wait_for_nothing() -> None:
    has_begun, queued, equal = Run(0), Run(0, has_slot=False), Run(2)
    has_begun.begun.set()
    accepting = asyncio.create_task(until_begun([has_begun, queued, equal], 2))
    assert not await _is_waiting(accepting)


async def test_a_silent_replica_holds_nobody_up_for_long() -> None:
    async with asyncio.timeout(30):
        await until_begun([Run(0)], 3)
