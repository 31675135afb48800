"""Stable Fast 3D: one picture to a textured mesh with PBR material, in one forward pass.

Text is first drawn by the text-to-image stage. Importing this package does not import torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dream_cad.models.base import ProgressCallback
from dream_cad.models.image_model import GeneratedMesh, ImageModel, LoadRequest
from dream_cad.models.image_options import ImageModelOptions
from dream_cad.models.profile import StageClock
from dream_cad.models.stable_fast_3d.options import StableFast3DOptions

if TYPE_CHECKING:
    from dream_cad.models.stable_fast_3d.pipeline import StableFast3DPipeline

NAME = "stable-fast-3d"


class StableFast3D(ImageModel["StableFast3DPipeline", StableFast3DOptions]):
    """Single picture to a game-ready mesh: UV layout, base colour, normal map, material.

    The published weights are under the Stability AI Community License.

    Arguments and errors are those of ``ImageModel``.
    """

    registered_name: ClassVar[str] = NAME
    generation_options: ClassVar[type[ImageModelOptions]] = StableFast3DOptions

    def _load(self, request: LoadRequest) -> tuple[StableFast3DPipeline, Path]:
        from dream_cad.models.stable_fast_3d.pipeline import StableFast3DPipeline
        from dream_cad.models.stable_fast_3d.weights import DTYPES, find_weights, load_network

        folder = request.checkpoint.folder
        dtype = DTYPES[request.precision]
        network = load_network(folder, device=request.device, dtype=dtype)
        return StableFast3DPipeline(network), find_weights(folder)

    def _run(
        self,
        pipeline: StableFast3DPipeline,
        source: Any,
        options: StableFast3DOptions,
        clock: StageClock,
        progress: ProgressCallback,
    ) -> GeneratedMesh:
        from dream_cad.models.stable_fast_3d.pipeline import run

        made = run(pipeline, source, options, clock, progress)
        used = options.resolve(pipeline.config).model_dump(exclude_none=True)
        facts: dict[str, Any] = {"options": used, "matting": made.matting}
        if made.sg_amplitudes is not None:
            facts["sg_amplitudes"] = made.sg_amplitudes
        return GeneratedMesh(made.mesh, facts)
