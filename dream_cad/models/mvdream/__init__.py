"""MVDream: a prompt to four consistent views, and from these to a mesh.

Importing this package does not import torch.
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Never

from dream_cad.exceptions import InvalidConfigError, StorageError
from dream_cad.models.base import GenerationResult, ProgressCallback, ignore_progress
from dream_cad.models.image_model import GeneratedMesh, ImageModel, LoadRequest
from dream_cad.models.image_options import ImageModelOptions
from dream_cad.models.mvdream.options import MVDreamOptions
from dream_cad.models.profile import StageClock
from dream_cad.models.receipt import text_sha256
from dream_cad.prompts import check_prompt
from dream_cad.settings import Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from dream_cad.models.mvdream.distill import OnPreview
    from dream_cad.models.mvdream.pipeline import MVDreamPipeline
    from dream_cad.models.mvdream.sds_training import TrainingConfig

NAME = "mvdream"
VIEWS_FILE, SPLATS_FILE = "views.png", "splats.ply"
"""Names in ``GenerationResult.files``."""


class MVDream(ImageModel["MVDreamPipeline", MVDreamOptions]):
    """Text to a mesh, through four views that agree with each other.

    Args:
        precision: fp32, fp16 or bf16; by default DREAM_CAD_PRECISION, else fp16 on CUDA and fp32
            on a CPU.
        checkpoint: ``"auto"``, ``"published"`` or a folder in a published layout: the diffusers
            folder or the original file, with LGM's file in it or in its folder ``lgm``.
        device: ``"cuda:<n>"`` or ``"cpu"``; by default the selected GPU if there is one.
        training: sizes of the sds road's field and views instead of the published ones; its
            ``steps`` and ``seed`` then stand for the options'.

    Raises:
        InvalidConfigError: the precision does not exist.
    """

    registered_name: ClassVar[str] = NAME
    text_through_image: ClassVar[bool] = False
    generation_options: ClassVar[type[ImageModelOptions]] = MVDreamOptions

    def __init__(
        self,
        *,
        precision: Precision | None = None,
        checkpoint: str | Path = "auto",
        device: str | None = None,
        training: TrainingConfig | None = None,
    ) -> None:
        super().__init__(precision=precision, checkpoint=checkpoint, device=device)
        self._training = training

    def _load(self, request: LoadRequest) -> tuple[MVDreamPipeline, Path]:
        from dream_cad.models.loading import DTYPES
        from dream_cad.models.mvdream.pipeline import MVDreamPipeline
        from dream_cad.models.mvdream.weights import LGM_FILES, load_lgm, load_networks

        folder, dtype = request.checkpoint.folder, DTYPES[request.precision]
        loaded = load_networks(folder, device=request.device, dtype=dtype)
        # The optimisation road does without LGM; the other says so when it is asked for.
        has_lgm = any((folder / name).is_file() for name in LGM_FILES)
        lgm = load_lgm(folder, device=request.device, dtype=dtype) if has_lgm else None
        return MVDreamPipeline(loaded.network, loaded.tokenizer, lgm), loaded.path

    def generate_from_text(
        self, prompt: str, *, progress: ProgressCallback = ignore_progress, **options: Any
    ) -> GenerationResult:
        """Generate a mesh from a prompt.

        Args:
            prompt: what to make; at most 75 tokens with its suffix.
            progress: called with (fraction, stage); what it raises ends the work.
            **options: see ``MVDreamOptions``.

        Returns:
            The mesh in the glTF frame in a centred unit cube. ``files`` holds ``views.png`` (the
            views side by side) and, by the lgm road, ``splats.ply``.

        Raises:
            InvalidConfigError: the prompt or an option is not accepted.
            GenerationError: the views or the surface failed.
            CheckpointError, ModelUnavailableError, InsufficientVRAMError: see ``load_model``.
        """
        parsed = self._parse(options)
        started = time.perf_counter()
        text = check_prompt(prompt)
        receipt = {"input": {"kind": "text", "prompt": text, "sha256": text_sha256(text)}}
        return self._generate(text, parsed, receipt, StageClock(), started, progress)

    def generate_from_image(
        self, image: Any, *, progress: ProgressCallback = ignore_progress, **options: Any
    ) -> Never:
        """Refuse: the published UNet takes no image prompts.

        Raises:
            InvalidConfigError: always.
        """
        raise InvalidConfigError(
            "MVDream generates from text; its published weights take no image prompt.",
            hint="Use triposr, stable-fast-3d, trellis or hunyuan3d-mini for pictures.",
        )

    def generate_views(
        self,
        prompt: str,
        *,
        samples: int = 1,
        progress: ProgressCallback = ignore_progress,
        **options: Any,
    ) -> list[Image]:
        """Draw the four views alone: the cheap way to choose a seed or a prompt.

        Args:
            prompt: what to make.
            samples: objects drawn in one batch, 1 to 16.
            progress: called with (fraction, stage).
            **options: those of ``generate_from_text`` that concern the views.

        Returns:
            A sheet for each sample: right side, front, left side, back.

        Raises:
            InvalidConfigError, GenerationError, ModelUnavailableError: as
                ``generate_from_text``.
        """
        from PIL import Image as PilImage

        from dream_cad.models.memory import cuda_memory_errors
        from dream_cad.models.mvdream.pipeline import draw_seed

        if not 1 <= samples <= 16:
            raise InvalidConfigError(f"samples is {samples}; 1 to 16 was expected.")
        parsed, text = self._parse(options), check_prompt(prompt)
        with self._lock, cuda_memory_errors("drawing views"):
            pipeline = self._require_loaded().pipeline
            views = pipeline.sample(text, parsed, draw_seed(parsed), progress, samples)
        return [PilImage.fromarray(view_sheet(sample)) for sample in views]

    def _run(
        self,
        pipeline: MVDreamPipeline,
        source: Any,
        options: MVDreamOptions,
        clock: StageClock,
        progress: ProgressCallback,
    ) -> GeneratedMesh:
        from dream_cad.models.mvdream.pipeline import draw_seed

        seed = draw_seed(options)
        run = self._by_lgm if options.reconstruction == "lgm" else self._by_sds
        made = run(pipeline, source, options, seed, clock, progress)
        # Where a checkpoint lay on some machine is nobody's business later.
        used = options.model_dump(exclude_none=True, exclude={"sds_checkpoint"}) | {
            "guidance_scale": options.guidance,
            "negative_prompt": options.negative,
            "prompt_suffix": bool(options.suffix),
        }
        facts = dict(made.facts)
        used |= facts.pop("options", {})
        return GeneratedMesh(made.mesh, facts | {"seed": seed, "options": used}, made.files)

    def _by_lgm(
        self,
        pipeline: MVDreamPipeline,
        prompt: str,
        options: MVDreamOptions,
        seed: int,
        clock: StageClock,
        progress: ProgressCallback,
    ) -> GeneratedMesh:
        from dream_cad.models.mvdream.pipeline import meshing_options, run_lgm
        from dream_cad.splats.ply import ply_bytes

        made = run_lgm(pipeline, prompt, options, seed, clock, progress)
        settings = meshing_options(options)
        used = {
            "resolution": settings.resolution,
            "density_threshold": settings.threshold,
            "closing": settings.closing,
        }
        facts = {"options": used, "matting": made.matting, "gaussians": len(made.cloud)}
        files = {VIEWS_FILE: png_bytes(view_sheet(made.views)), SPLATS_FILE: ply_bytes(made.cloud)}
        return GeneratedMesh(made.mesh, facts, files)

    def _by_sds(
        self,
        pipeline: MVDreamPipeline,
        prompt: str,
        options: MVDreamOptions,
        seed: int,
        clock: StageClock,
        progress: ProgressCallback,
    ) -> GeneratedMesh:
        from dream_cad.models.mvdream.distill import run_sds

        made = run_sds(
            pipeline,
            prompt,
            options,
            seed,
            clock,
            progress,
            training=self._training,
            on_preview=_preview_writer(options.sds_checkpoint),
        )
        files = {VIEWS_FILE: png_bytes(view_sheet(made.views))}
        return GeneratedMesh(made.mesh, {"sds_steps": made.steps}, files)


def _preview_writer(checkpoint: str | None) -> OnPreview | None:
    """Return what writes the latest views beside the checkpoint, readable at any moment."""
    if checkpoint is None:
        return None
    path = Path(checkpoint).expanduser().with_suffix(".png")

    def write(step: int, views: NDArray[np.uint8]) -> None:
        part = path.with_name(f"{path.name}.part")
        try:
            part.write_bytes(png_bytes(view_sheet(views)))
            part.replace(path)
        except OSError as error:
            raise StorageError(
                f"The preview {path} cannot be written: {error.strerror or error}."
            ) from error

    return write


def view_sheet(views: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay views (4, H, W, 3) side by side: (H, 4 * W, 3)."""
    count, height, width, channels = views.shape
    return views.transpose(1, 0, 2, 3).reshape(height, count * width, channels)


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Encode (H, W, 3) as PNG."""
    from PIL import Image as PilImage

    buffer = io.BytesIO()
    PilImage.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
