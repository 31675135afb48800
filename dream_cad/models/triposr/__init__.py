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
from dream_cad.settings import Precision

if TYPE_CHECKING:
    from dream_cad.models.triposr.pipeline import TripoSRPipeline

NAME = "triposr"


class TripoSR(ImageModel["TripoSRPipeline", TripoSROptions]):
    """Single image to mesh, with vertex colours or a texture; text through a picture.

    Args:
        precision: fp32, fp16 or bf16; by default DREAM_CAD_PRECISION, else fp16 on CUDA and fp32
            on a CPU.
        checkpoint: ``"auto"``, ``"published"``, ``"nano"`` or a folder in the published layout.
        device: ``"cuda:<n>"`` or ``"cpu"``; by default the selected GPU if there is one.
        text_to_image: diffusers folder or repository id for text input; by default the bundled
            nano pipeline for a nano checkpoint, else that of DREAM_CAD_TEXT_TO_IMAGE.

    Raises:
        InvalidConfigError: the precision does not exist.
    """

    generation_options: ClassVar[type[ImageModelOptions]] = TripoSROptions

    def __init__(
        self,
        *,
        precision: Precision | None = None,
        checkpoint: str | Path = "auto",
        device: str | None = None,
        text_to_image: str | Path | None = None,
    ) -> None:
        super().__init__(
            NAME,
            precision=precision,
            checkpoint=checkpoint,
            device=device,
            text_to_image=text_to_image,
        )

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
