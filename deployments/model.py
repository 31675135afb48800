"""The model deployment: one class for every model, one replica for every slot."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from deployments.failures import problem_of
from deployments.joblog import log_stage
from deployments.messages import (
    INPUT_FILE,
    INPUT_MESH,
    Done,
    Event,
    ModelInfo,
    StageRequest,
    view_file,
)
from deployments.metrics import ReplicaMetrics
from deployments.process import cap_gpu_memory, import_modules, use_all_cores
from deployments.steps import StepRunner
from deployments.workfolder import checkpoint_option, job_folder, work_store
from dream_cad.artifacts import ArtifactStore
from dream_cad.exceptions import CheckpointError, DreamCadError
from dream_cad.images.loading import load_image
from dream_cad.log import configure_logging
from dream_cad.models.base import GenerationResult, Model3D, ProgressCallback
from dream_cad.models.factory import ModelFactory
from dream_cad.models.registry import resolve_implementation

logger = logging.getLogger(__name__)


class ModelReplica:
    """Holds one model in memory and runs one job at a time.

    A replica may die at any moment, and the router gives its job to another, which takes up the
    checkpoint of models that keep one (see deployments.workfolder); nothing else is durable here.

    Args:
        name: the registered model.
        options: constructor options.
        modules: modules to import first.
        artifacts_root: where uploads are read from.
        gpu_share: this replica's ``num_gpus``.
    """

    def __init__(
        self,
        name: str,
        options: dict[str, Any],
        modules: list[str],
        artifacts_root: str,
        gpu_share: float,
    ) -> None:
        configure_logging()
        self._name = name
        self._options = options
        self._modules = modules
        self._gpu_share = gpu_share
        self._artifacts = ArtifactStore(artifacts_root)
        self._work = work_store(self._artifacts)
        self._steps = StepRunner()
        self._metrics = ReplicaMetrics(name)
        self._router_id = ""
        self._loading = threading.Lock()
        self._model: Model3D | None = None
        self._problem: dict[str, Any] | None = None
        self._try_to_load()

    def _try_to_load(self) -> None:
        # A model that cannot load must say why in GET /v1/models, not restart for ever.
        try:
            self._ready_model()
        except DreamCadError as error:
            logger.warning("model %s is not ready: %s", self._name, error)
            self._problem = problem_of(error)

    def _ready_model(self) -> Model3D:
        """Return the model, loaded and warm; loading is tried again after a failure."""
        with self._loading:
            if self._model is None:
                import_modules(self._modules)
                resolve_implementation(self._name)
                cap_gpu_memory(self._gpu_share)
                model = ModelFactory.create_model(self._name, **self._options)
                model.load_model()
                use_all_cores()
                model.warm_up()
                self._model, self._problem = model, None
            return self._model

    def check_health(self) -> None:
        """Let Serve replace a replica whose cancelled work does not end."""
        if self._steps.is_stuck:
            raise RuntimeError(f"a cancelled job of {self._name} does not stop")

    async def adopt(self, router_id: str) -> ModelInfo:
        """Serve this router from now on, and say whether the model is ready.

        What was begun for an earlier router is stopped: nobody waits for it any more. Loading a
        model that could not be loaded begins again; a later call tells how it went.
        """
        if router_id != self._router_id:
            self._steps.cancel_all()
            self._router_id = router_id
        if self._model is None and not self._loading.locked():
            asyncio.get_running_loop().run_in_executor(None, self._try_to_load)
        return self.state()

    def state(self) -> ModelInfo:
        """Say whether the model is ready."""
        is_ready = self._model is not None
        return ModelInfo(is_ready, problem=None if is_ready else self._problem)

    def cancel(self, job_id: str) -> bool:
        """Stop a job at its next step, if it is at work here."""
        return self._steps.cancel(job_id)

    async def generate(self, request: StageRequest) -> AsyncIterator[Event]:
        """Generate; yields progress, then Done with a GenerationResult, or Failed."""

        def work(progress: ProgressCallback) -> GenerationResult:
            return self._generate(request, progress)

        async for event in self._steps.run(request.job_id, work):
            log_stage(f"model {self._name}", request, event)
            if isinstance(event, Done):
                self._metrics.show_headroom(self._gpu_share, event.peak_memory_bytes)
            yield event

    def _generate(self, request: StageRequest, progress: ProgressCallback) -> GenerationResult:
        model = self._ready_model()
        option = checkpoint_option(model)
        if option is None:
            return self._run(model, request, request.options, progress)
        with job_folder(self._work, request) as folder:
            options = {**request.options, option: str(folder.checkpoint)}
            try:
                return self._run(model, request, options, folder.watched(progress))
            except CheckpointError as error:
                if not folder.discard():
                    raise
                logger.warning("job %s begins anew: %s", request.job_id, error)
            return self._run(model, request, options, folder.watched(progress))

    def _run(
        self,
        model: Model3D,
        request: StageRequest,
        options: dict[str, Any],
        progress: ProgressCallback,
    ) -> GenerationResult:
        if request.picture is not None:
            return model.generate_from_image(request.picture.pixels, progress=progress, **options)
        if request.input_key is not None and request.has_mesh:
            return self._work_on_mesh(model, request, request.input_key, options, progress)
        if request.input_key is not None and request.views:
            views = self._views(request.input_key, request.views)
            return model.generate_from_views(views, progress=progress, **options)
        if request.input_key is not None:
            image = load_image(self._artifacts.read(request.input_key, INPUT_FILE))
            return model.generate_from_image(image, progress=progress, **options)
        return model.generate_from_text(request.prompt, progress=progress, **options)

    def _views(self, key: str, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: load_image(self._artifacts.read(key, view_file(name))) for name in names}

    def _work_on_mesh(
        self,
        model: Model3D,
        request: StageRequest,
        key: str,
        options: dict[str, Any],
        progress: ProgressCallback,
    ) -> GenerationResult:
        work = model.texture_mesh if model.paints_meshes() else model.generate_variant
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / INPUT_MESH
            path.write_bytes(self._artifacts.read(key, INPUT_MESH))
            if request.picture is not None:
                image = request.picture.pixels
            elif request.prompt:
                return work(path, prompt=request.prompt, progress=progress, **options)
            else:
                image = load_image(self._artifacts.read(key, INPUT_FILE))
            return work(path, image=image, progress=progress, **options)
