"""What every model that starts from a picture has in common: loading, the text stage, receipts."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, get_args

from dream_cad.exceptions import InvalidConfigError
from dream_cad.images.loading import load_image
from dream_cad.models.base import (
    GenerationResult,
    Model3D,
    ProgressCallback,
    ignore_progress,
)
from dream_cad.models.image_options import ImageModelOptions
from dream_cad.models.profile import StageClock, is_profiled, part_of
from dream_cad.models.receipt import image_sha256, text_sha256, versions
from dream_cad.models.weights import (
    Checkpoint,
    choose_checkpoint,
    published_source,
    weights_hash,
)
from dream_cad.prompts import check_prompt
from dream_cad.settings import Precision, get_settings
from dream_cad.utils import clear_gpu_cache

if TYPE_CHECKING:
    from dream_cad.images.text_to_image import TextToImage
    from dream_cad.mesh.data import MeshData

PipelineType = TypeVar("PipelineType")
OptionsType = TypeVar("OptionsType", bound=ImageModelOptions)

# Share of a text generation that the picture takes, for progress.
_PICTURE_SHARE = 0.6


@dataclass(frozen=True)
class LoadedModel(Generic[PipelineType]):
    """What is in memory, and what the receipt says about it."""

    pipeline: PipelineType
    checkpoint: Checkpoint
    weights_path: Path
    precision: Precision
    device: str


@dataclass(frozen=True)
class LoadRequest:
    """What to load: the folder of a checkpoint, onto a device, in a precision."""

    checkpoint: Checkpoint
    device: str
    precision: Precision


@dataclass(frozen=True)
class GeneratedMesh:
    """What a pipeline made, and what the receipt says about how.

    Attributes:
        mesh: glTF frame, centred unit cube.
        facts: for the result's metadata; ``options`` holds the options as they were used.
        files: what else came about, by file name.
    """

    mesh: MeshData
    facts: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)


class ImageModel(Model3D, Generic[PipelineType, OptionsType]):
    """Picture to mesh; text through a picture.

    Safe to share between threads: generations run one at a time.

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

    registered_name: ClassVar[str]
    text_through_image: ClassVar[bool] = True
    generation_options: ClassVar[type[ImageModelOptions]]

    def __init__(
        self,
        *,
        precision: Precision | None = None,
        checkpoint: str | Path = "auto",
        device: str | None = None,
        text_to_image: str | Path | None = None,
    ) -> None:
        super().__init__(
            self.registered_name,
            precision=precision,
            checkpoint=checkpoint,
            device=device,
            text_to_image=text_to_image,
        )
        if precision is not None and precision not in get_args(Precision):
            raise InvalidConfigError(
                f"precision is {precision!r}; choose one of {', '.join(get_args(Precision))}."
            )
        self._choice = checkpoint
        self._precision: Precision | None = precision
        self._device = device
        self._text_source = text_to_image
        self._text_stage: TextToImage | None = None
        self._loaded: LoadedModel[PipelineType] | None = None
        self._lock = threading.RLock()

    @classmethod
    def options_model(cls) -> type[ImageModelOptions]:
        """Return the options of ``generate_from_image`` and ``generate_from_text``."""
        return cls.generation_options

    @abstractmethod
    def _load(self, request: LoadRequest) -> tuple[PipelineType, Path]:
        """Return the loaded pipeline and the weights file that the receipt names."""

    @abstractmethod
    def _run(
        self,
        pipeline: PipelineType,
        source: Any,
        options: OptionsType,
        clock: StageClock,
        progress: ProgressCallback,
    ) -> GeneratedMesh:
        """Turn a picture (or what ``_read_input`` returned) into a finished mesh."""

    @property
    def checkpoint(self) -> str:
        """Kind of the loaded checkpoint (published, nano, folder), or what was asked for."""
        return self._loaded.checkpoint.kind if self._loaded else str(self._choice)

    @property
    def device(self) -> str | None:
        """Device of the loaded weights, or the one asked for."""
        return self._loaded.device if self._loaded else self._device

    def load_model(self) -> None:
        """Load the weights; does nothing if they are loaded.

        Raises:
            ModelUnavailableError: the checkpoint is not on this machine.
            CheckpointError: it is damaged or does not fit.
            InsufficientVRAMError: the GPU is too small.
            InvalidConfigError: no such device or checkpoint.
        """
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load_checkpoint()
                self._is_loaded = True

    def _load_checkpoint(self) -> LoadedModel[PipelineType]:
        from dream_cad.images.pipeline_loading import choose_device
        from dream_cad.models.memory import cuda_memory_errors

        device = choose_device(self._device)
        checkpoint = choose_checkpoint(
            self.name,
            self._choice,
            min_vram_gb=self.capabilities.min_vram_gb,
            vram_gb=0.0 if device == "cpu" else None,
        )
        default: Precision = "fp32" if device == "cpu" else "fp16"
        precision = self._precision or get_settings().precision or default
        with cuda_memory_errors(f"loading {self.name}"):
            pipeline, path = self._load(LoadRequest(checkpoint, device, precision))
        return LoadedModel(pipeline, checkpoint, path, precision, device)

    def unload_model(self) -> None:
        """Drop the weights, also those of the text stage, and give the memory back."""
        with self._lock:
            self._loaded = None
            self._is_loaded = False
            if self._text_stage is not None:
                self._text_stage.unload()
                self._text_stage = None
            clear_gpu_cache()

    def generate_from_image(
        self, image: Any, *, progress: ProgressCallback = ignore_progress, **options: Any
    ) -> GenerationResult:
        """Generate a mesh from a picture of one object.

        Args:
            image: PIL image, (H, W, 3 or 4) array, path, or the bytes of a file.
            progress: called with (fraction, stage); what it raises ends the work.
            **options: see ``options_model()``.

        Returns:
            The mesh in the glTF frame in a centred unit cube.

        Raises:
            InvalidConfigError: an option is wrong, or the picture shows no object.
            FileFormatError, PayloadTooLargeError: the picture cannot be used.
            GenerationError: the result has no surface.
            CheckpointError, ModelUnavailableError, InsufficientVRAMError: see ``load_model``.
        """
        parsed = self._parse(options).for_image()
        started = time.perf_counter()
        picture = load_image(image)
        source = {"kind": "image", "sha256": image_sha256(picture)}
        receipt = {"seed": getattr(parsed, "seed", None), "input": source}
        return self._generate(picture, parsed, receipt, StageClock(), started, progress)

    def generate_from_text(
        self, prompt: str, *, progress: ProgressCallback = ignore_progress, **options: Any
    ) -> GenerationResult:
        """Draw a picture of the prompt, then generate a mesh from it.

        Args:
            prompt: what to make, for example "a red wooden chair".
            progress: called with (fraction, stage); what it raises ends the work.
            **options: see ``options_model()``.

        Raises:
            InvalidConfigError: the prompt or an option is not accepted.
            GenerationError: the picture or the mesh failed.
            CheckpointError, ModelUnavailableError, InsufficientVRAMError: see ``load_model``.
        """
        parsed = self._parse(options)
        started = time.perf_counter()
        text = check_prompt(prompt)
        clock = StageClock()
        with self._lock, clock.stage("text_to_image"):
            self.load_model()
            drawn = self._require_text_stage().generate(
                text,
                seed=getattr(parsed, "seed", None),
                progress=part_of(progress, 0.0, _PICTURE_SHARE),
                **parsed.for_text_stage(),
            )
        if "seed" in type(parsed).model_fields:  # one seed makes all of it again
            parsed = parsed.model_copy(update={"seed": drawn.seed})
        source = {"kind": "text", "prompt": text, "sha256": text_sha256(text)}
        receipt = {"seed": drawn.seed, "input": source, "text_to_image": drawn.facts()}
        rest = part_of(progress, _PICTURE_SHARE, 1.0)
        return self._generate(drawn.image, parsed, receipt, clock, started, rest)

    def _generate(
        self,
        source: Any,
        options: OptionsType,
        receipt: dict[str, Any],
        clock: StageClock,
        started: float,
        progress: ProgressCallback,
    ) -> GenerationResult:
        from dream_cad.models.memory import cuda_memory_errors

        with self._lock, cuda_memory_errors("generating"):
            progress(0.0, "loading")
            loaded = self._require_loaded()
            made = self._run(loaded.pipeline, source, options, clock, progress)
            metadata = receipt | self._describe(loaded) | dict(made.facts)
        if is_profiled():
            metadata["profile"] = {name: round(s, 4) for name, s in clock.seconds.items()}
        progress(1.0, "done")
        mesh = made.mesh
        return GenerationResult(
            vertices=mesh.vertices,
            faces=mesh.faces,
            vertex_colors=mesh.vertex_colors,
            uv_coords=mesh.uv_coords,
            texture=mesh.texture,
            materials=mesh.materials,
            metadata=metadata,
            files=dict(made.files),
            generation_time=time.perf_counter() - started,
            model_name=self.name,
        )

    def _describe(self, loaded: LoadedModel[PipelineType]) -> dict[str, Any]:
        """The part of the receipt that is about this model and machine."""
        return {
            "model": self.name,
            "checkpoint": {
                "kind": loaded.checkpoint.kind,
                "source": self._source(loaded.checkpoint),
                "weights_sha256": weights_hash(loaded.weights_path),
            },
            "precision": loaded.precision,
            "device": loaded.device,
            "versions": versions(),
        }

    def _source(self, checkpoint: Checkpoint) -> str:
        """Where the weights come from, without paths of this machine where a name will do."""
        if checkpoint.kind == "published":
            return published_source(self.name, checkpoint.folder)
        return "dream_cad" if checkpoint.kind == "nano" else str(checkpoint.folder)

    def _parse(self, options: dict[str, Any]) -> OptionsType:
        parsed: Any = self.options_model().parse(options)
        typed: OptionsType = parsed
        return typed

    def _require_loaded(self) -> LoadedModel[PipelineType]:
        self.load_model()
        if self._loaded is None:
            raise RuntimeError("the model was unloaded while it was being used")
        return self._loaded

    def _require_text_stage(self) -> TextToImage:
        from dream_cad.images.text_to_image import TextToImage

        if self._text_stage is None:
            is_nano = self._require_loaded().checkpoint.kind == "nano"
            self._text_stage = TextToImage(
                self._text_source,
                precision=self._precision,
                device=self._device,
                checkpoint="nano" if is_nano else None,
            )
        return self._text_stage
