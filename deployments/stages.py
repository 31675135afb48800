"""The stages around the model: text to picture before it, finishing after it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from PIL import Image

from deployments.failures import problem_of
from deployments.joblog import log_finish, log_stage
from deployments.judging import judge
from deployments.messages import (
    MESH_FILE,
    PACKAGE_FILE,
    PICTURE_FILE,
    PREVIEW_FILE,
    RECEIPT_FILE,
    Event,
    Finished,
    FinishRequest,
    ModelInfo,
    Picture,
    Rejected,
    StageRequest,
)
from deployments.options import FinishOptions
from deployments.process import cap_gpu_memory, use_all_cores
from deployments.steps import StepRunner
from dream_cad.artifacts import ArtifactStore
from dream_cad.exceptions import DreamCadError, GenerationError
from dream_cad.images.text_to_image import TextToImage
from dream_cad.log import configure_logging
from dream_cad.mesh.cleanup import finish_mesh
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import mesh_bytes
from dream_cad.mesh.render import render_turntable
from dream_cad.models.base import GenerationResult, ProgressCallback
from dream_cad.profiles import build_package

logger = logging.getLogger(__name__)


class TextToImageReplica:
    """Turns prompts into pictures, one at a time.

    Args:
        source: diffusers repository or folder; None for the choice by settings.
        gpu_share: this replica's ``num_gpus``.
    """

    def __init__(self, source: str | None, gpu_share: float) -> None:
        configure_logging()
        self._steps = StepRunner()
        self._router_id = ""
        self._stage = TextToImage(source)
        self._problem: dict[str, Any] | None = None
        try:
            cap_gpu_memory(gpu_share)
            self._stage.load()
            use_all_cores()
        except DreamCadError as error:
            logger.warning("the text stage is not ready: %s", error)
            self._problem = problem_of(error)

    def adopt(self, router_id: str) -> ModelInfo:
        """Serve this router from now on (see ModelReplica.adopt), and say whether it can."""
        if router_id != self._router_id:
            self._steps.cancel_all()
            self._router_id = router_id
        return ModelInfo(is_ready=self._problem is None, problem=self._problem)

    def check_health(self) -> None:
        """Let Serve replace a replica whose cancelled work does not end."""
        if self._steps.is_stuck:
            raise RuntimeError("a cancelled picture does not stop")

    def cancel(self, job_id: str) -> bool:
        """Stop a job at its next step, if it is at work here."""
        return self._steps.cancel(job_id)

    async def generate(self, request: StageRequest) -> AsyncIterator[Event]:
        """Draw; yields progress, then Done with a Picture, or Failed."""

        def work(progress: ProgressCallback) -> Picture:
            drawn = self._stage.generate(request.prompt, progress=progress, **request.options)
            receipt = {
                field.name: getattr(drawn, field.name)
                for field in fields(drawn)
                if field.name != "image"
            }
            return Picture(np.asarray(drawn.image), receipt)

        async for event in self._steps.run(request.job_id, work):
            log_stage("text to image", request, event)
            yield event


class MeshFinisher:
    """Cleans up, simplifies, exports, draws the preview and publishes; CPUs only.

    Durable: when ``finish`` returns, mesh, preview and receipt are published together.

    Args:
        artifacts_root: where to publish.
        concurrency: meshes at once.
        preview_size: height of the turntable sheet in pixels.
    """

    def __init__(self, artifacts_root: str, concurrency: int, preview_size: int) -> None:
        configure_logging()
        self._preview_size = preview_size
        self._artifacts = ArtifactStore(artifacts_root)
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="finish")

    async def finish(self, request: FinishRequest) -> Finished | Rejected:
        """Finish and publish one result, unless it does not pass the gates asked for.

        Raises:
            GenerationError: the mesh is empty.
            StorageError: disk full, no permission; nothing is visible then.
        """
        loop = asyncio.get_running_loop()
        outcome = await loop.run_in_executor(self._pool, self._finish, request)
        log_finish(request, outcome)
        return outcome

    async def discard(self, key: str) -> None:
        """Delete a published result that was not chosen."""
        await asyncio.to_thread(self._artifacts.delete, key)

    def _finish(self, request: FinishRequest) -> Finished | Rejected:
        clock = _Laps()
        result, picture = request.result, request.picture
        options = FinishOptions.model_validate(request.options)
        mesh = _cleaned(result, options)
        clock.lap("cleanup_s")
        quality: float | None = None
        if request.require or request.is_ranked:
            verdict = judge(mesh, request.require, is_ranked=request.is_ranked)
            clock.lap("acceptance_s")
            if verdict.failed:
                return Rejected(verdict.failed)
            mesh, quality = verdict.mesh, verdict.quality
        receipt = _receipt(request, result, mesh, picture) | {"quality": quality}
        files = {MESH_FILE: mesh_bytes(replace(mesh, extras=receipt), "glb")}
        clock.lap("export_s")
        files[PREVIEW_FILE] = _png(render_turntable(mesh, size=self._preview_size))
        if picture is not None:
            files[PICTURE_FILE] = _png(picture.pixels)
        clock.lap("preview_s")
        files |= result.files
        if options.profile is not None:
            files[PACKAGE_FILE] = _package(mesh, options, receipt)
            clock.lap("profile_s")
        files[RECEIPT_FILE] = json.dumps(receipt, indent=1, default=str).encode()
        self._artifacts.publish(request.key, files)
        clock.lap("publish_s")
        return Finished(request.key, clock.laps, quality)


class _Laps:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 4)
        self._last = now


def _cleaned(result: GenerationResult, options: FinishOptions) -> MeshData:
    if len(result.faces) == 0:
        raise GenerationError("The model gave an empty mesh.", hint="Try another seed or input.")
    mesh = result.to_mesh()
    if options.target_faces is None and options.min_component == 0.0:
        return mesh
    return finish_mesh(mesh, target_faces=options.target_faces, min_component=options.min_component)


def _package(mesh: MeshData, options: FinishOptions, receipt: dict[str, Any]) -> bytes:
    package = build_package(
        mesh,
        options.profile or "",
        title=options.profile_name or str(receipt.get("prompt") or ""),
        size=options.profile_size,
        receipt=receipt,
    )
    return package.zip_bytes()


def _receipt(
    request: FinishRequest, result: GenerationResult, mesh: MeshData, picture: Picture | None
) -> dict[str, Any]:
    return {
        **request.receipt,
        "job_id": request.job_id,
        "model": result.model_name,
        "finished_at": datetime.now(UTC).isoformat(),
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "generation_time_s": result.generation_time,
        "finishing": request.options,
        "text_to_image": picture.receipt if picture is not None else None,
        "metadata": result.metadata,
    }


def _png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
