"""Hunyuan3D-2mini: one or several pictures to a mesh by flow matching on a set of latents.

Text is first drawn by the text-to-image stage. Importing this package does not import torch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dream_cad.exceptions import InvalidConfigError
from dream_cad.images.loading import load_image
from dream_cad.models.base import GenerationResult, ProgressCallback, ignore_progress
from dream_cad.models.hunyuan3d_mini.options import VIEWS, Hunyuan3DOptions
from dream_cad.models.image_model import GeneratedMesh, ImageModel, LoadRequest
from dream_cad.models.image_options import ImageModelOptions
from dream_cad.models.profile import StageClock
from dream_cad.models.receipt import image_sha256
from dream_cad.settings import Precision

if TYPE_CHECKING:
    from dream_cad.models.hunyuan3d_mini.config import Variant
    from dream_cad.models.hunyuan3d_mini.pipeline import Hunyuan3DPipeline

NAME = "hunyuan3d-mini"


class Hunyuan3DMini(ImageModel["Hunyuan3DPipeline", Hunyuan3DOptions]):
    """Pictures to a mesh without colour; text through a picture.

    The weights are under the Tencent Hunyuan 3D 2.0 Community License, which does not apply in
    the European Union, the United Kingdom and South Korea.

    Args:
        variant: ``"standard"``, ``"fast"`` (guidance as an input, one evaluation a step) or
            ``"turbo"`` (few steps).
        precision: fp32, fp16 or bf16; by default DREAM_CAD_PRECISION, else fp16 on CUDA and fp32
            on a CPU.
        checkpoint: ``"auto"``, ``"published"`` or a folder in the published layout: a checkout of
            the repository, or one variant's folder.
        device: ``"cuda:<n>"`` or ``"cpu"``; by default the selected GPU if there is one.
        text_to_image: diffusers folder or repository id for text input; by default that of
            DREAM_CAD_TEXT_TO_IMAGE.

    Raises:
        InvalidConfigError: the precision or variant does not exist.
    """

    registered_name: ClassVar[str] = NAME
    generation_options: ClassVar[type[ImageModelOptions]] = Hunyuan3DOptions

    def __init__(
        self,
        *,
        variant: Variant = "standard",
        precision: Precision | None = None,
        checkpoint: str | Path = "auto",
        device: str | None = None,
        text_to_image: str | Path | None = None,
    ) -> None:
        if variant not in ("standard", "fast", "turbo"):
            raise InvalidConfigError(
                f"variant is {variant!r}; choose one of standard, fast, turbo.",
                details={"allowed": ["standard", "fast", "turbo"]},
            )
        super().__init__(
            precision=precision, checkpoint=checkpoint, device=device, text_to_image=text_to_image
        )
        self.config["variant"] = variant
        self._variant: Variant = variant

    def _load(self, request: LoadRequest) -> tuple[Hunyuan3DPipeline, Path]:
        from dream_cad.models.hunyuan3d_mini.pipeline import Hunyuan3DPipeline
        from dream_cad.models.hunyuan3d_mini.weights import (
            WEIGHTS_FILES,
            find_variant,
            load_network,
        )
        from dream_cad.models.loading import DTYPES, find_weights

        folder = find_variant(request.checkpoint.folder, self._variant)
        dtype = DTYPES[request.precision]
        network = load_network(folder, device=request.device, dtype=dtype)
        return Hunyuan3DPipeline(network), find_weights(folder, WEIGHTS_FILES, model=NAME)

    @classmethod
    def view_names(cls) -> tuple[str, ...] | None:
        """The views that the conditioner has numbers for."""
        return VIEWS

    def generate_from_views(
        self,
        views: Mapping[str, Any] | Sequence[Any],
        *,
        progress: ProgressCallback = ignore_progress,
        **options: Any,
    ) -> GenerationResult:
        """Generate a mesh from several pictures of one object.

        The published mini was trained on one picture; the sibling 2mv on several.

        Args:
            views: pictures by view: front, left, back, right.
            progress: called with (fraction, stage); what it raises ends the work.
            **options: see Hunyuan3DOptions.

        Raises:
            InvalidConfigError: no view or an unknown one, or as ``generate_from_image``.
        """
        if not isinstance(views, Mapping):
            raise InvalidConfigError(
                "Hunyuan3D-2mini wants its pictures by view.", hint=f"Views: {', '.join(VIEWS)}."
            )
        parsed = self._parse(options).for_image()
        started = time.perf_counter()
        pictures = {name: load_image(image) for name, image in views.items()}
        hashes = {name: image_sha256(picture) for name, picture in pictures.items()}
        receipt = {"input": {"kind": "views", "sha256": hashes}}
        return self._generate(pictures, parsed, receipt, StageClock(), started, progress)

    def _run(
        self,
        pipeline: Hunyuan3DPipeline,
        source: Any,
        options: Hunyuan3DOptions,
        clock: StageClock,
        progress: ProgressCallback,
    ) -> GeneratedMesh:
        from dream_cad.models.hunyuan3d_mini.pipeline import run

        made = run(pipeline, source, options, clock, progress)
        used = options.resolve(pipeline.config).model_dump(exclude_none=True)
        facts: dict[str, Any] = {"options": used, "matting": made.matting, "variant": self._variant}
        facts |= {"holes_filled": made.finished.holes_filled, "closed": made.finished.is_closed}
        return GeneratedMesh(made.finished.mesh, facts | {"seed": made.seed})
