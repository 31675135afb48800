"""TripoSR: one image to a mesh through a triplane, in one forward pass.

Text is first drawn by the text-to-image stage. Importing this package does not import torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dream_cad.models.base import ProgressCallback
from dream_cad.models.image_model import GeneratedMesh, ImageModel, LoadRequest
from dream_cad.models.image_options import ImageModelOptions
from dream_cad.models.profile import StageClock
from dream_cad.models.triposr.options import TripoSROptions

if TYPE_CHECKING:
    from dream_cad.models.triposr.pipeline import TripoSRPipeline

NAME = "triposr"


class TripoSR(ImageModel["TripoSRPipeline", TripoSROptions]):
    """Single image to mesh, with vertex colours or a texture; text through a picture.

    Arguments and errors are those of ``ImageModel``.
    """

    registered_name: ClassVar[str] = NAME
    generation_options: ClassVar[type[ImageModelOptions]] = TripoSROptions

    def _load(self, request: LoadRequest) -> tuple[TripoSRPipeline, Path]:
        from dream_cad.models.loading import DTYPES, find_weights
        from dream_cad.models.triposr.pipeline import TripoSRPipeline
        from dream_cad.models.triposr.weights import WEIGHTS_FILES, load_network

        folder = request.checkpoint.folder
        dtype = DTYPES[request.precision]
        network = load_network(folder, device=request.device, dtype=dtype)
        return TripoSRPipeline(network), find_weights(folder, WEIGHTS_FILES, model=NAME)

    def warm_up(self) -> None:
        """Compute the part of the network that does not depend on the input."""
        self._require_loaded().pipeline.warm_up()

    def _run(
        self,
        pipeline: TripoSRPipeline,
        source: Any,
        options: TripoSROptions,
        clock: StageClock,
        progress: ProgressCallback,
    ) -> GeneratedMesh:
        from dream_cad.models.triposr.pipeline import run

        mesh, prepared = run(pipeline, source, options, clock, progress)
        used = options.resolve(pipeline.config).model_dump(exclude_none=True)
        return GeneratedMesh(mesh, {"options": used, "matting": prepared.matting})
