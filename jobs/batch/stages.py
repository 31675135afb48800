"""The stages of a batch: draw the picture (GPU), make the mesh (GPU), finish it (CPU)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from deployments.options import FinishOptions, SplitOptions, split_options
from deployments.process import cap_gpu_memory, import_modules, use_all_cores
from dream_cad.benchmark.quality import QualityAssessor
from dream_cad.exceptions import DreamCadError, GenerationError
from dream_cad.images.loading import ImageLimits, load_image
from dream_cad.images.text_to_image import TextToImage
from dream_cad.mesh.cleanup import finish_mesh
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import mesh_bytes
from dream_cad.models.base import Model3D
from dream_cad.models.factory import ModelFactory
from jobs.batch.attempts import Counts, begin_rows
from jobs.batch.gpu_load import GpuLoad
from jobs.batch.items import PROBLEM, Item, pickled, telling, to_blocks, to_items
from jobs.batch.manifest import COMPLETED, FAILED, Entry, Manifest
from jobs.batch.rows import Row
from jobs.batch.storage import Storage, read_limited

NEWS = pa.schema(
    [
        ("completed", pa.int64()),
        ("failed", pa.int64()),
        ("gpu_percent", pa.float64()),
        (PROBLEM, pa.large_binary()),
    ]
)
"""What the last stage returns of a block: counts, or the error that ends the batch."""


@dataclass(frozen=True)
class StageSetup:
    """What every stage of one model's batch knows.

    Attributes:
        storage: the output.
        tally: counts attempts, of all workers.
        model: the registered name.
        model_options: of its constructor.
        modules: to import first.
        finish_names: options that the finisher reads.
        text_names: options of the text stage, and its argument that each becomes.
        format: of the meshes.
        gpu_share: of a model actor.
        accelerators: kinds of GPU that it may be on; none for any.
        text_source: what the text stage loads.
        text_gpu_share: of a text actor.
        text_accelerators: kinds of GPU that it may be on.
        is_alone: whether one actor has the machine to itself.
        has_quality: whether finished meshes are assessed.
    """

    storage: Storage
    tally: Counts
    model: str
    model_options: dict[str, Any]
    modules: tuple[str, ...]
    finish_names: frozenset[str]
    text_names: dict[str, str]
    format: str
    gpu_share: float = 0.0
    accelerators: tuple[str, ...] = ()
    text_source: str | None = None
    text_gpu_share: float = 0.0
    text_accelerators: tuple[str, ...] = ()
    is_alone: bool = False
    has_quality: bool = True

    def split(self, row: Row) -> SplitOptions:
        """Return a row's options by stage, its seed included."""
        given = row.options if row.seed is None else {**row.options, "seed": row.seed}
        return split_options(given, self.finish_names, self.text_names)


class _Loaded:
    """Loads once when the actor starts; what went wrong is told by the first block.

    An error in the constructor would make Ray start the actor again and again.
    """

    def __init__(self, setup: StageSetup) -> None:
        self._setup = setup
        self._problem: DreamCadError | None = None
        try:
            import_modules(setup.modules)
            self._load()
        except DreamCadError as error:
            self._problem = error

    def _load(self) -> None:
        raise NotImplementedError

    def _items(self, stage: str, block: pa.Table) -> Iterator[Item]:
        if self._problem is not None:
            raise self._problem
        yield from begun_items(self._setup, stage, block)


class DrawPictures(_Loaded):
    """The text stage: rows with a prompt get a picture, others pass."""

    def _load(self) -> None:
        cap_gpu_memory(self._setup.text_gpu_share)
        self._stage = TextToImage(self._setup.text_source)
        self._stage.load()

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Draw the pictures of a block."""
        return telling(to_blocks(worked(item, self._draw) for item in self._items("draw", block)))

    def _draw(self, item: Item) -> Item:
        if item.row.prompt is None:
            return item
        drawn = self._stage.generate(item.row.prompt, **self._setup.split(item.row).text)
        return replace(item, picture=np.asarray(drawn.image))


class GenerateMeshes(_Loaded):
    """The model."""

    _model: Model3D

    def _load(self) -> None:
        setup = self._setup
        self._gpu = GpuLoad() if setup.gpu_share else None
        cap_gpu_memory(setup.gpu_share)
        self._model = ModelFactory.create_model(setup.model, **setup.model_options)
        self._model.load_model()
        if setup.is_alone:
            use_all_cores()
        self._model.warm_up()

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Make the meshes of a block."""
        items = self._items("generate", block)
        return telling(to_blocks(self._measured(worked(item, self._generate)) for item in items))

    def _measured(self, item: Item) -> Item:
        return item if self._gpu is None else replace(item, gpu_percent=self._gpu.percent())

    def _generate(self, item: Item) -> Item:
        split = self._setup.split(item.row)
        options = split.model
        if item.picture is not None:
            result = self._model.generate_from_image(item.picture, **options)
        elif item.row.image is not None:
            picture = load_image(
                read_limited(item.row.image, ImageLimits.from_settings().max_bytes)
            )
            result = self._model.generate_from_image(picture, **options)
        else:
            result = self._model.generate_from_text(str(item.row.prompt), **split.text | options)
        return replace(item, picture=None, result=result)


class FinishMeshes:
    """Cleans up, exports, writes the meshes and then their rows of the manifest; CPUs only.

    Durable: when a block returns, its rows are in the manifest.

    Args:
        setup: of the batch.
    """

    def __init__(self, setup: StageSetup) -> None:
        self._setup = setup
        self._manifest = Manifest(setup.storage)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Finish the meshes of a block; returns a row of ``NEWS``."""
        try:
            news = self._finish_all(block)
        except DreamCadError as error:
            news = {"completed": 0, "failed": 0, PROBLEM: pickled(error)}
        return pa.Table.from_pylist([news], NEWS)

    def _finish_all(self, block: pa.Table) -> dict[str, Any]:
        items = list(begun_items(self._setup, "finish", block))
        entries = [self._finish(item) for item in items]
        self._manifest.add(entries)
        loads = [item.gpu_percent for item in items if item.gpu_percent is not None]
        completed = sum(entry.status == COMPLETED for entry in entries)
        return {
            "completed": completed,
            "failed": len(entries) - completed,
            "gpu_percent": float(np.mean(loads)) if loads else None,
        }

    def _finish(self, item: Item) -> Entry:
        row = item.row
        path = f"meshes/{row.id[:2]}/{row.id}.{self._setup.format}"
        done = worked(item, lambda item: self._publish(item, path))
        has_mesh = done.error is None
        return Entry(
            id=row.id,
            index=row.index,
            status=COMPLETED if has_mesh else FAILED,
            path=path if has_mesh else None,
            model=row.model,
            prompt=row.prompt,
            image=row.image,
            seed=row.seed,
            seconds=round(done.seconds, 4),
            quality=done.quality,
            error=done.error,
        )

    def _publish(self, item: Item, path: str) -> Item:
        result = item.result
        if result is None or len(result.faces) == 0:
            raise GenerationError("The model gave an empty mesh.", hint="Try another seed.")
        wishes = FinishOptions.model_validate(self._setup.split(item.row).finish)
        mesh = result.to_mesh()
        if wishes.target_faces is not None or wishes.min_component:
            mesh = finish_mesh(
                mesh, target_faces=wishes.target_faces, min_component=wishes.min_component
            )
        receipt = {**result.metadata, "row_id": item.row.id, "prompt": item.row.prompt}
        content = mesh_bytes(replace(mesh, extras=receipt), self._setup.format)
        self._setup.storage.write(path, content)
        return replace(item, quality=assess(mesh) if self._setup.has_quality else None)


def assess(mesh: MeshData) -> float:
    """Return the overall quality of a mesh, 0 to 100 (docs/quality.md); about 15 us a face."""
    return round(QualityAssessor().assess(mesh).overall_mesh_quality, 2)


def begun_items(setup: StageSetup, stage: str, block: pa.Table) -> Iterator[Item]:
    """Yield the items of a block; those whose row kills its worker come with an error."""
    items = to_items(setup.storage, block)
    by_id = {item.row.id: item for item in items}
    for row, may_try in begin_rows(setup.tally, stage, [item.row for item in items]):
        item = by_id[row.id]
        if may_try:
            yield item
        else:
            yield replace(item, error="The process died each time while it worked on this row.")


def worked(item: Item, work: Callable[[Item], Item]) -> Item:
    """Return the item after ``work``; an error of the work becomes the item's own."""
    if item.error is not None:
        return item
    started = time.monotonic()
    try:
        item = work(item)
    except DreamCadError as error:
        item = replace(item, error=str(error), result=None, picture=None)
    except Exception as error:  # noqa: BLE001 - a model's code fails in any way: its row fails
        text = f"{type(error).__name__}: {error}"
        item = replace(item, error=text, result=None, picture=None)
    return replace(item, seconds=item.seconds + time.monotonic() - started)
