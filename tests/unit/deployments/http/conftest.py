"""The HTTP API without a cluster: a real queue behind it, and a worker that tests drive."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from deployments.args import AppArgs
from deployments.endings import add_batch
from deployments.gateway_client import GatewayClient
from deployments.http.api import build_api
from deployments.http.auth import Authenticator
from deployments.http.fetching import ImageFetcher
from deployments.http.intake import Intake
from deployments.http.results import ResultReader
from deployments.http.services import Services
from deployments.messages import (
    MESH_FILE,
    PREVIEW_FILE,
    RECEIPT_FILE,
    JobEventView,
    JobView,
    ModelInfo,
)
from deployments.options import FinishOptions
from deployments.plan import ModelPlan
from dream_cad.artifacts import ArtifactStore
from dream_cad.exceptions import JobNotFoundError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import mesh_bytes
from dream_cad.models.base import ModelCapabilities
from dream_cad.queue import GenerationJob, JobFilter, JobQueue
from dream_cad.queue.jobs import BatchView, JobEvent
from dream_cad.queue.keys import ApiKey
from dream_cad.queue.licenses import AcceptedLicense
from dream_cad.queue.state import Switches
from dream_cad.queue.webhooks import Delivery
from tests.cluster.echo_model import _CORNERS, _FACES, EchoModel

CAPABILITIES = ModelCapabilities(min_vram_gb=0.0, recommended_vram_gb=0.0, license_type="MIT")
PLANS = [
    ModelPlan(
        "echo",
        is_deployed=True,
        reason="for tests",
        capabilities=CAPABILITIES,
        finish_options=frozenset(FinishOptions.model_fields),
    ),
    ModelPlan("echo2", is_deployed=True, reason="for tests", capabilities=CAPABILITIES),
    ModelPlan("trellis", is_deployed=False, reason="not here", capabilities=CAPABILITIES),
]
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class QueueRouter:
    """The router's methods on a queue, without dispatch."""

    def __init__(self, queue: JobQueue) -> None:
        self.queue = queue
        self.ready = True

    async def submit(self, job: GenerationJob) -> JobView:
        return await self.get(self.queue.add_job(job))

    async def make(self, job: GenerationJob, timeout_s: float) -> JobView:
        return await self.wait((await self.submit(job)).job.id, timeout_s)

    async def submit_batch(self, jobs: list[GenerationJob], name: str, owner: str) -> BatchView:
        return await self.batch(add_batch(self.queue, jobs, owner, name, None))

    async def get(self, job_id: str) -> JobView:
        job = self.queue.get_job(job_id)
        if job is None:
            raise JobNotFoundError(f"There is no job {job_id!r}.")
        return JobView(job, self.queue.position(job), None)

    async def list_jobs(
        self, wanted: JobFilter, cursor: str | None, limit: int
    ) -> tuple[list[JobView], str | None]:
        page = self.queue.list_jobs(wanted, cursor=cursor, limit=limit)
        return [JobView(job, None, None) for job in page.jobs], page.next_cursor

    async def cancel(self, job_id: str) -> JobView:
        self.queue.cancel(job_id)
        return await self.get(job_id)

    async def wait(self, job_id: str, timeout_s: float) -> JobView:
        await asyncio.to_thread(self.queue.wait, job_id, timeout_s)
        return await self.get(job_id)

    async def follow(self, job_id: str, after: int | None) -> AsyncIterator[JobEventView]:
        events: list[JobEvent] = self.queue.events_after(job_id, after or 0)
        for event in events:
            yield JobEventView(event.seq, event.kind, await self.get(job_id))

    async def batch(self, batch_id: str) -> BatchView:
        found = self.queue.get_batch(batch_id)
        if found is None:
            raise JobNotFoundError(f"There is no batch {batch_id!r}.")
        return found

    async def batch_items(
        self, batch_id: str, cursor: str | None, limit: int
    ) -> tuple[list[JobView], str | None]:
        page = self.queue.list_batch(batch_id, cursor, limit)
        return [JobView(job, None, None) for job in page.jobs], page.next_cursor

    async def pause_batch(self, batch_id: str) -> None:
        self.queue.pause_batch(batch_id)

    async def resume_batch(self, batch_id: str) -> None:
        self.queue.resume_batch(batch_id)

    async def cancel_batch(self, batch_id: str) -> None:
        self.queue.cancel_batch(batch_id)

    async def retry_failed(self, batch_id: str, key: str, request_hash: str) -> list[str]:
        return self.queue.retry_failed(batch_id, key, request_hash)

    async def pause(self, model: str | None) -> None:
        self.queue.pause(model)

    async def resume(self, model: str | None) -> None:
        self.queue.resume(model)

    async def drain(self) -> None:
        self.queue.drain()

    async def undrain(self) -> None:
        self.queue.undrain()

    async def switches(self) -> Switches:
        return self.queue.switches()

    async def models(self) -> dict[str, ModelInfo]:
        return {"echo": ModelInfo(is_ready=self.ready)}

    async def cluster(self) -> dict[str, Any]:
        return {"gpus": []}

    async def verify_key(self, plaintext: str) -> ApiKey | None:
        return self.queue.keys.verify(plaintext)

    async def any_key(self) -> bool:
        return self.queue.keys.any_key()

    async def keys(self) -> list[ApiKey]:
        return [replace(key, webhook_secret="") for key in self.queue.keys.list_keys()]

    async def link_secret(self, owner: str) -> str | None:
        key = self.queue.keys.get(owner) if owner else None
        return None if key is None or key.revoked_at is not None else key.webhook_secret

    async def licenses(self) -> list[AcceptedLicense]:
        return self.queue.licenses.list()

    async def accept_license(self, model: str, license: str, by: str) -> None:
        self.queue.licenses.accept(model, license, by)

    async def deliveries(self, job_id: str) -> list[Delivery]:
        return self.queue.webhooks.list_for(job_id)


@dataclass
class Stand:
    """The API, its queue and its artifacts."""

    client: httpx.AsyncClient
    queue: JobQueue
    router: QueueRouter
    artifacts: ArtifactStore
    api: FastAPI

    async def submit(self, **fields: Any) -> str:
        answer = await self.client.post("/v1/jobs", json={"prompt": "a cube", **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def complete(self) -> GenerationJob:
        """Work the next job as a worker would."""
        job = self.queue.get_next_job()
        assert job is not None
        assert job.lease_token is not None
        key = f"{job.id}-{job.attempts}"
        mesh = mesh_bytes(MeshData(vertices=_CORNERS, faces=_FACES), "glb")
        files = {MESH_FILE: mesh, PREVIEW_FILE: png((128, 32)), RECEIPT_FILE: b'{"seed": 1}'}
        self.artifacts.publish(key, files)
        self.queue.complete(job.id, job.lease_token, key)
        return job

    def fail(self) -> GenerationJob:
        job = self.queue.get_next_job()
        assert job is not None
        assert job.lease_token is not None
        problem = {"type": "generation-failed", "title": "x", "status": 500, "detail": "round"}
        self.queue.fail(job.id, job.lease_token, problem)
        return job


def png(size: tuple[int, int] = (32, 32)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def args() -> AppArgs:
    """Arguments of the application; tests override it."""
    return AppArgs.model_validate(
        {
            "models": [{"name": "echo"}],
            "limits": {"max_pending": 20_000},
            "webhooks": {"allowed_hosts": ["hooks.example.com"], "secret": WEBHOOK_SECRET},
        }
    )


@pytest.fixture
async def stand(
    tmp_path: Path, args: AppArgs, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stand]:
    monkeypatch.setattr("deployments.http.checks.resolve_implementation", lambda _: EchoModel)
    queue = JobQueue(f"sqlite:///{tmp_path}/jobs.sqlite3", max_pending=args.limits.max_pending)
    router = QueueRouter(queue)
    artifacts = ArtifactStore(tmp_path / "artifacts")
    services = Services(
        args=args,
        plans={plan.name: plan for plan in PLANS},
        router=cast("GatewayClient", router),
        artifacts=artifacts,
        results=ResultReader(artifacts),
        intake=Intake(PLANS, "echo", 3, has_text_stage=False, webhooks=args.webhooks),
        auth=Authenticator(router.verify_key, router.any_key, cache_s=0.0),
        fetcher=ImageFetcher(args.fetch),
    )
    api = build_api(services)
    transport = httpx.ASGITransport(api, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield Stand(client, queue, router, artifacts, api)
    queue.close()
