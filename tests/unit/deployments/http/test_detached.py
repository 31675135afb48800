from __future__ import annotations

import asyncio
import contextvars
import gc

from deployments.http.detached import Detached
from deployments.http.request_id import request_id_var

_of_the_request: contextvars.ContextVar[str] = contextvars.ContextVar("of_the_request", default="")


async def test_work_goes_on_when_its_request_is_cancelled() -> None:
    detached, may_end = Detached(), asyncio.Event()
    done: list[str] = []

    async def work() -> None:
        await may_end.wait()
        done.append("done")

    async def request() -> None:
        await asyncio.shield(detached.start(work()))

    asking = asyncio.create_task(request())
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    gc.collect()
    may_end.set()
    async with asyncio.timeout(10):
        while not done:
            await asyncio.sleep(0)
    assert asking.cancelled()


async def test_only_the_requests_id_goes_along() -> None:
    request_id_var.set("request-1")
    _of_the_request.set("a call of the request")

    async def work() -> tuple[str, str]:
        return request_id_var.get(), _of_the_request.get()

    assert await Detached().start(work()) == ("request-1", "")
