"""FastAPI + Celery doing durable work; the broker and result store is Redis, flushed each write.

python celery_app.py PORT REDIS_PORT FOLDER          the HTTP server
celery --app celery_app worker                       the worker (same environment variables)
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from celery import Celery
from fastapi import FastAPI, Response

RESULT = b"x" * 1000
_POLL_S = 0.002

if __name__ == "__main__":
    os.environ["CELERY_REDIS"] = f"redis://127.0.0.1:{sys.argv[2]}/0"
    os.environ["CELERY_FOLDER"] = sys.argv[3]
_REDIS = os.environ["CELERY_REDIS"]

tasks = Celery("celery_app", broker=_REDIS, backend=_REDIS)
tasks.conf.update(task_acks_late=True, worker_prefetch_multiplier=1)
api = FastAPI()


@tasks.task(name="generate")  # type: ignore[untyped-decorator]
def generate(job_id: str) -> str:
    """Do nothing but publish a result."""
    path = Path(os.environ["CELERY_FOLDER"]) / job_id
    path.write_bytes(RESULT)
    return str(path)


def _submit(prompt: str) -> Any:
    return generate.apply_async((os.urandom(16).hex(),), headers={"prompt": prompt})


@api.post("/jobs", status_code=202)
async def submit(body: dict[str, str]) -> dict[str, str]:
    """Queue a job."""
    task = await asyncio.to_thread(_submit, body["prompt"])
    return {"id": task.id}


@api.post("/generate")
async def generate_now(body: dict[str, str]) -> Response:
    """Queue a job and wait for its result."""
    task = await asyncio.to_thread(_submit, body["prompt"])
    while True:
        state = await asyncio.to_thread(lambda: task.result if task.ready() else None)
        if state is not None:
            return Response(await asyncio.to_thread(Path(state).read_bytes))
        await asyncio.sleep(_POLL_S)


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(api, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
