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
from dream_cad.models.profile import StageClock, part_of
from dream_cad.models.receipt import arrays_sha256, image_sha256, text_sha256
from dream_cad.prompts import check_prompt
from dream_cad.settings import Precision

if TYPE_CHECKING:
    from dream_cad.images.text_to_image import TextToImageResult
    from dream_cad.mesh.data import MeshData
    from dream_cad.models.hunyuan3d_mini.config import Variant
    from dream_cad.models.hunyuan3d_mini.paint.painter import PaintedMesh, TexturePainter
    from dream_cad.models.hunyuan3d_mini.paint.weights import PaintVariant
    from dream_cad.models.hunyuan3d_mini.pipeline import Hunyuan3DPipeline
    from dream_cad.models.hunyuan3d_mini.texturing import MeshToPaint

NAME = "hunyuan3d-mini"

# Of the progress, where a texture follows.
_SHAPE_SHARE = 0.5


class Hunyuan3DMini(ImageModel["Hunyuan3DPipeline", Hunyuan3DOptions]):
    """Pictures to a mesh, with a painted texture on request; text through a picture.

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
        paint: folder with the weights of Hunyuan3D-Paint and delight, for textures; by default
            where ``dream-cad pull hunyuan3d-paint`` puts them, or beside the shape model's.
            They are loaded when a texture is first asked for.
        paint_variant: ``"turbo"`` or ``"standard"``.

    Raises:
        InvalidConfigError: the precision or a variant does not exist.
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
        paint: str | Path | None = None,
        paint_variant: PaintVariant = "turbo",
    ) -> None:
        if variant not in ("standard", "fast", "turbo"):
            raise InvalidConfigError(
                f"variant is {variant!r}; choose one of standard, fast, turbo.",
                details={"allowed": ["standard", "fast", "turbo"]},
            )
        super().__init__(
            precision=precision, checkpoint=checkpoint, device=device, text_to_image=text_to_image
        )
        if paint_variant not in ("turbo", "standard"):
            raise InvalidConfigError(
                f"paint_variant is {paint_variant!r}; choose turbo or standard.",
                details={"allowed": ["turbo", "standard"]},
            )
        self.config |= {"variant": variant, "paint": paint, "paint_variant": paint_variant}
        self._variant: Variant = variant
        self._paint_choice = None if paint is None else Path(paint).expanduser()
        self._paint_variant: PaintVariant = paint_variant
        self._painter: TexturePainter | None = None

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

    @classmethod
    def paints_meshes(cls) -> bool:
        """Return True: a given mesh can be painted."""
        return True

    def texture_mesh(
        self,
        mesh: MeshData | GenerationResult | str | Path,
        *,
        image: Any = None,
        prompt: str | None = None,
        progress: ProgressCallback = ignore_progress,
        **options: Any,
    ) -> GenerationResult:
        """Paint a mesh that is there; its triangles stay where they are.

        Args:
            mesh: in the frame of glTF (y up, front along +z), or the path of a mesh file.
            image: a picture of what it shall look like, from the front; or
            prompt: what it shall look like, of which a picture is drawn first.
            progress: called with (fraction, stage); what it raises ends the work.
            **options: see ``Hunyuan3DOptions``; those of the shape have no say.

        Raises:
            InvalidConfigError: not exactly one of image and prompt is given, an option is wrong,
                the weights of Paint are not there, the UVs cannot be kept, or it is too large.
            FileFormatError: the file is no mesh.
            ShapeError: the mesh is empty or inconsistent.
        """
        from dream_cad.models.hunyuan3d_mini.texturing import MeshToPaint, read_mesh

        if (prompt is None) == (image is None):
            raise InvalidConfigError("A mesh is painted after either an image or a prompt.")
        started, clock = time.perf_counter(), StageClock()
        shape = read_mesh(mesh)
        source: dict[str, Any] = {
            "kind": "mesh",
            "faces": len(shape.faces),
            "mesh_sha256": arrays_sha256(shape.vertices, shape.faces),
        }
        parsed = self._parse(options)
        receipt: dict[str, Any] = {"input": source}
        if prompt is None:
            parsed, picture = parsed.for_image(), load_image(image)
            source["sha256"] = image_sha256(picture)
        else:
            text = check_prompt(prompt)
            drawn = self._draw(text, parsed, clock, part_of(progress, 0.0, 0.3))
            picture = drawn.image
            source |= {"prompt": text, "sha256": text_sha256(text)}
            receipt["text_to_image"] = drawn.facts()
            parsed = parsed.model_copy(update={"seed": drawn.seed})
            progress = part_of(progress, 0.3, 1.0)
        return self._generate(
            MeshToPaint(shape, picture), parsed, receipt, clock, started, progress
        )

    def _draw(
        self,
        text: str,
        options: Hunyuan3DOptions,
        clock: StageClock,
        progress: ProgressCallback,
    ) -> TextToImageResult:
        with self._lock, clock.stage("text_to_image"):
            self.load_model()
            self._require_painter()  # before minutes go into a picture
            return self._require_text_stage().generate(
                text, seed=options.seed, progress=progress, **options.for_text_stage()
            )

    def unload_model(self) -> None:
        """Drop the weights, also those of Paint and of the text stage."""
        with self._lock:
            self._painter = None
            super().unload_model()

    def _require_painter(self) -> TexturePainter:
        from dream_cad.models.hunyuan3d_mini.paint.painter import TexturePainter
        from dream_cad.models.hunyuan3d_mini.texturing import find_paint
        from dream_cad.models.loading import DTYPES

        if self._painter is None:
            loaded, variant = self._require_loaded(), self._paint_variant
            folder = find_paint(self._paint_choice, loaded.checkpoint.folder, variant)
            dtype = DTYPES[loaded.precision]
            self._painter = TexturePainter.load(
                folder, variant=variant, device=loaded.device, dtype=dtype
            )
        return self._painter

    def _run(
        self,
        pipeline: Hunyuan3DPipeline,
        source: Any,
        options: Hunyuan3DOptions,
        clock: StageClock,
        progress: ProgressCallback,
    ) -> GeneratedMesh:
        from dream_cad.models.hunyuan3d_mini import texturing
        from dream_cad.models.hunyuan3d_mini.pipeline import run

        if isinstance(source, texturing.MeshToPaint):
            return self._run_paint(source, options, clock, progress)
        painter = None
        if options.texture:  # what is missing for it is told before the shape is made
            texturing.check_before(options, self._require_loaded().device)
            painter = self._require_painter()
        share = part_of(progress, 0.0, 1.0 if painter is None else _SHAPE_SHARE)
        made = run(pipeline, source, options, clock, share)
        used = options.resolve(pipeline.config).model_dump(exclude_none=True)
        facts: dict[str, Any] = {"options": used, "matting": made.matting, "seed": made.seed}
        facts |= {"variant": self._variant, "holes_filled": made.finished.holes_filled}
        facts["closed"] = made.finished.is_closed
        if painter is None:
            return GeneratedMesh(made.finished.mesh, facts)
        with clock.stage("paint"):
            painted = texturing.paint_generated(
                painter,
                made.finished.mesh,
                made.pictures,
                texturing.settings_of(options, made.seed),
                part_of(progress, _SHAPE_SHARE, 1.0),
            )
        return GeneratedMesh(painted.mesh, facts | self._paint_facts(painted))

    def _run_paint(
        self,
        source: MeshToPaint,
        options: Hunyuan3DOptions,
        clock: StageClock,
        progress: ProgressCallback,
    ) -> GeneratedMesh:
        from dream_cad.models.hunyuan3d_mini.texturing import paint_given

        painter = self._require_painter()
        with clock.stage("paint"):
            painted, facts = paint_given(painter, source, options, progress)
        facts |= {"options": options.model_dump(exclude_none=True)}
        return GeneratedMesh(painted.mesh, facts | self._paint_facts(painted))

    def _paint_facts(self, painted: PaintedMesh) -> dict[str, Any]:
        return {"paint": {"variant": self._paint_variant} | painted.facts}
