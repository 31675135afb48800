"""TRELLIS: structured latents from pictures or text, decoded to four representations.

Importing this package does not import torch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dream_cad.exceptions import CheckpointError, InvalidConfigError
from dream_cad.images.loading import load_image
from dream_cad.mesh.data import MeshData
from dream_cad.models.base import GenerationResult, ProgressCallback, ignore_progress
from dream_cad.models.image_model import GeneratedMesh, ImageModel, LoadRequest
from dream_cad.models.image_options import ImageModelOptions
from dream_cad.models.profile import StageClock
from dream_cad.models.receipt import arrays_sha256, image_sha256, text_sha256
from dream_cad.models.trellis.options import RepresentationType, TrellisOptions
from dream_cad.prompts import check_prompt
from dream_cad.settings import Precision

if TYPE_CHECKING:
    from PIL import Image

    from dream_cad.models.trellis.pipeline import TrellisPipeline

__all__ = ["NAME", "RepresentationType", "Trellis", "TrellisOptions"]

NAME = "trellis"


class Trellis(ImageModel["TrellisPipeline", TrellisOptions]):
    """Pictures or text to a mesh, Gaussian splats, a radiance field and a structured latent.

    Text is read by a text variant where one is loaded, else drawn as a picture first.

    Args:
        precision: fp32, fp16 or bf16, of the transformers' matrices; the rest stays fp32. By
            default DREAM_CAD_PRECISION, else fp16 on CUDA and fp32 on a CPU.
        checkpoint: ``"auto"``, ``"published"`` (TRELLIS-image-large) or a folder in the published
            layout, of the image variant or of a text variant.
        device: ``"cuda:<n>"`` or ``"cpu"``; by default the selected GPU if there is one.
        text_checkpoint: folder of a text variant, to read prompts natively beside pictures.
        text_to_image: diffusers folder or repository id for text input where no text variant is
            loaded; by default that of DREAM_CAD_TEXT_TO_IMAGE.
        offload: keep the networks in main memory and bring each to the GPU for its stage.

    Raises:
        InvalidConfigError: the precision does not exist.
    """

    registered_name: ClassVar[str] = NAME
    generation_options: ClassVar[type[ImageModelOptions]] = TrellisOptions

    def __init__(
        self,
        *,
        precision: Precision | None = None,
        checkpoint: str | Path = "auto",
        device: str | None = None,
        text_checkpoint: str | Path | None = None,
        text_to_image: str | Path | None = None,
        offload: bool = False,
    ) -> None:
        super().__init__(
            precision=precision, checkpoint=checkpoint, device=device, text_to_image=text_to_image
        )
        self.config |= {"text_checkpoint": text_checkpoint, "offload": offload}
        self._text_folder = None if text_checkpoint is None else Path(text_checkpoint).expanduser()
        self._offload = offload

    @classmethod
    def draws_picture_first(cls, options: Mapping[str, Any]) -> bool:
        """Tell whether text becomes a picture: not where a text variant reads it."""
        if options.get("text_checkpoint") is not None:
            return False
        from dream_cad.models.trellis.weights import is_text_variant

        try:
            return not is_text_variant(Path(str(options.get("checkpoint", ""))).expanduser())
        except CheckpointError:
            return True  # what is wrong with the folder is told by loading it

    def _load(self, request: LoadRequest) -> tuple[TrellisPipeline, Path]:
        import torch

        from dream_cad.models.loading import DTYPES
        from dream_cad.models.trellis.network import Residence
        from dream_cad.models.trellis.pipeline import TrellisPipeline
        from dream_cad.models.trellis.weights import LoadTarget, load_networks, receipt_file

        home = Residence(torch.device(request.device), offload=self._offload)
        target = LoadTarget(home.home, DTYPES[request.precision])
        folder = request.checkpoint.folder
        networks = load_networks(folder, self._text_folder, target=target)
        return TrellisPipeline(networks, home), receipt_file(folder)

    def generate_from_text(
        self, prompt: str, *, progress: ProgressCallback = ignore_progress, **options: Any
    ) -> GenerationResult:
        """Generate from a prompt: natively with a text variant, else through a picture.

        Args:
            prompt: what to make; a text variant reads at most 75 tokens.
            progress: called with (fraction, stage); what it raises ends the work.
            **options: see ``TrellisOptions``.

        Raises:
            InvalidConfigError: the prompt or an option is not accepted.
            GenerationError: the picture, the structure or the surface failed.
            CheckpointError, ModelUnavailableError, InsufficientVRAMError: see ``load_model``.
        """
        if self._require_loaded().pipeline.networks.text is None:
            return super().generate_from_text(prompt, progress=progress, **options)
        from dream_cad.models.trellis.source import Prompt

        parsed = self._parse(options).for_text()
        started = time.perf_counter()
        text = check_prompt(prompt)
        receipt = {"input": {"kind": "text", "prompt": text, "sha256": text_sha256(text)}}
        return self._generate(Prompt(text), parsed, receipt, StageClock(), started, progress)

    @classmethod
    def view_names(cls) -> tuple[str, ...] | None:
        """Any pictures of the object will do: their views need not be known."""
        return ()

    def generate_from_views(
        self,
        views: Mapping[str, Any] | Sequence[Any],
        *,
        progress: ProgressCallback = ignore_progress,
        **options: Any,
    ) -> GenerationResult:
        """Generate from several pictures of one object, in any order.

        Args:
            views: 1 to 16 pictures, their names if any unread; ``multi_image`` says how they are
                combined.
            progress: called with (fraction, stage); what it raises ends the work.
            **options: see ``TrellisOptions``.

        Raises:
            InvalidConfigError: there is no picture or there are too many, or as
                ``generate_from_image``.
        """
        from dream_cad.models.trellis.source import Pictures

        parsed = self._parse(options).for_image()
        started = time.perf_counter()
        sources = views.values() if isinstance(views, Mapping) else views
        pictures = tuple(load_image(view) for view in sources)
        hashes = [image_sha256(picture) for picture in pictures]
        receipt = {"input": {"kind": "views", "sha256": hashes}}
        return self._generate(Pictures(pictures), parsed, receipt, StageClock(), started, progress)

    @classmethod
    def makes_variants(cls) -> bool:
        """Meshes are taken to start from."""
        return True

    def generate_variant(
        self,
        mesh: MeshData | GenerationResult | str | Path,
        *,
        prompt: str | None = None,
        image: Any = None,
        progress: ProgressCallback = ignore_progress,
        **options: Any,
    ) -> GenerationResult:
        """Keep a mesh's shape at the scale of voxels, and give it other details and colours.

        Args:
            mesh: in the frame of glTF (y up), or the path of a mesh file.
            prompt: what it shall look like, read by a text variant; or
            image: a picture of that, for the image variant.
            progress: called with (fraction, stage); what it raises ends the work.
            **options: see ``TrellisOptions``; those of the structure stage have no say.

        Raises:
            InvalidConfigError: not exactly one of prompt and image is given, the variant for it
                is not loaded, or the mesh is empty.
            FileFormatError: the file is no mesh.
        """
        from dream_cad.models.trellis.frame import from_gltf
        from dream_cad.models.trellis.source import Pictures, Prompt, VariantOf

        if (prompt is None) == (image is None):
            raise InvalidConfigError("A variant takes either a prompt or an image.")
        started = time.perf_counter()
        shape = _read_mesh(mesh)
        source: dict[str, Any] = {
            "kind": "variant",
            "faces": len(shape.faces),
            "mesh_sha256": arrays_sha256(shape.vertices, shape.faces),
        }
        guide: Pictures | Prompt
        if prompt is not None:
            parsed = self._parse(options).for_text()
            guide = Prompt(check_prompt(prompt))
            source |= {"prompt": guide.text, "sha256": text_sha256(guide.text)}
        else:
            parsed = self._parse(options).for_image()
            picture = load_image(image)
            guide = Pictures((picture,))
            source |= {"sha256": image_sha256(picture)}
        variant = VariantOf(from_gltf(shape.vertices), shape.faces, guide)
        clock = StageClock()
        return self._generate(variant, parsed, {"input": source}, clock, started, progress)

    def decode_latent(
        self,
        latent: bytes | str | Path,
        *,
        progress: ProgressCallback = ignore_progress,
        **options: Any,
    ) -> GenerationResult:
        """Decode a ``latent.npz`` of an earlier generation to other representations.

        Args:
            latent: the file or its bytes.
            progress: called with (fraction, stage); what it raises ends the work.
            **options: see ``TrellisOptions``; those of sampling have no say.

        Raises:
            FileFormatError: it is no latent, or not one for the loaded decoders.
            GenerationError: it has no surface.
        """
        from dream_cad.models.trellis.files import read_latent

        parsed = self._parse(options)
        started = time.perf_counter()
        pipeline = self._require_loaded().pipeline
        source = read_latent(latent, pipeline.resolution, pipeline.channels)
        digest = arrays_sha256(source.coords, source.feats)
        receipt = {"input": {"kind": "latent", "sha256": digest}}
        return self._generate(source, parsed, receipt, StageClock(), started, progress)

    def _run(
        self,
        pipeline: TrellisPipeline,
        source: Any,
        options: TrellisOptions,
        clock: StageClock,
        progress: ProgressCallback,
    ) -> GeneratedMesh:
        from PIL import Image as PilImage

        from dream_cad.models.trellis.pipeline import run
        from dream_cad.models.trellis.source import Pictures

        picture: Image.Image | None = source if isinstance(source, PilImage.Image) else None
        start = source if picture is None else Pictures((picture,))
        made = run(pipeline, start, options, clock, progress)
        facts = dict(made.facts) | self._text_facts(made.facts)
        used = options.model_dump(mode="json", exclude_none=True) | facts.pop("options", {})
        return GeneratedMesh(made.mesh, facts | {"options": used}, made.files)

    def _text_facts(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Which text variant was read, where it is another checkpoint than the main one."""
        if self._text_folder is None or facts.get("conditioning") != "text":
            return {}
        from dream_cad.models.trellis.weights import receipt_file
        from dream_cad.models.weights import weights_hash

        digest = weights_hash(receipt_file(self._text_folder))
        return {"text_checkpoint": {"source": str(self._text_folder), "weights_sha256": digest}}


def _read_mesh(mesh: MeshData | GenerationResult | str | Path) -> MeshData:
    """A mesh without appearance, from wherever it comes."""
    if isinstance(mesh, GenerationResult):
        mesh = mesh.to_mesh()
    if not isinstance(mesh, MeshData):
        from dream_cad.mesh.loading import load_mesh

        mesh = load_mesh(Path(mesh))
    return replace(mesh, vertex_colors=None, uv_coords=None, texture=None, materials=None)
