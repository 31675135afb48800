"""The text-to-image stage: any diffusers text-to-image pipeline behind one small class."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dream_cad.checkpoints import TEXT_TO_IMAGE, nano_folder
from dream_cad.exceptions import (
    CheckpointError,
    DreamCadError,
    GenerationError,
    InsufficientVRAMError,
    InvalidConfigError,
)
from dream_cad.gpu import get_total_vram
from dream_cad.images.arrays import array_to_image
from dream_cad.images.draw_options import (
    check_guidance,
    check_negative_prompt,
    check_seed,
    check_steps,
)
from dream_cad.images.hub import download_repository, find_repository
from dream_cad.images.pipeline_folder import (
    DOWNLOAD_PATTERNS,
    MODEL_INDEX,
    PipelineDefaults,
    read_defaults,
    read_model_index,
)
from dream_cad.images.pipeline_loading import (
    choose_device,
    choose_precision,
    load_pipeline,
    release_pipeline,
)
from dream_cad.images.prompts import apply_template, check_prompt, find_unknown_words
from dream_cad.settings import CheckpointChoice, Precision, get_settings

STAGE = "text_to_image"
NANO = "nano"
PUBLISHED_MIN_VRAM_GB = 10.0
"""The default pipeline's largest part (8 GB in bfloat16) and its activations."""

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class TextToImageResult:
    """A picture and how it was made.

    Attributes:
        image: RGB.
        prompt: the text as the pipeline got it, template included.
        seed: the seed used, also when it was drawn by chance.
        unknown_words: words of the prompt that the text encoder does not know.
        truncated: whether the text was longer than the encoder reads.
        source: folder or repository id of the pipeline, or "nano" for the bundled one.
        license: licence of its weights.
    """

    image: Image.Image
    prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float
    source: str
    license: str
    unknown_words: list[str] = field(default_factory=list)
    truncated: bool = False

    def facts(self) -> dict[str, Any]:
        """Return everything but the picture, for a receipt."""
        return {key: value for key, value in vars(self).items() if key != "image"}


class TextToImage:
    """A diffusers text-to-image pipeline, loaded at the first picture.

    Safe to share between threads: pictures are made one at a time. Only safetensors are read, and
    no code that comes with weights is run.

    Args:
        source: pipeline folder or repository id; by default the bundled nano pipeline or that of
            DREAM_CAD_TEXT_TO_IMAGE, as DREAM_CAD_CHECKPOINT says.
        precision: fp16, bf16 or fp32; by default DREAM_CAD_PRECISION, else what the pipeline was
            made for on a GPU and fp32 on a CPU.
        device: ``"cuda:<n>"`` or ``"cpu"``; by default the selected GPU if there is one.
        checkpoint: overrides DREAM_CAD_CHECKPOINT where no source is given.
        allow_download: fetch the repository if it is not on this machine.
    """

    def __init__(
        self,
        source: str | Path | None = None,
        *,
        precision: Precision | None = None,
        device: str | None = None,
        checkpoint: CheckpointChoice | None = None,
        allow_download: bool = False,
    ) -> None:
        self._source = str(source) if source is not None else _choose_source(checkpoint)
        self._precision = precision
        self._device = device
        self._allow_download = allow_download
        self._pipeline: Any = None
        self._defaults: PipelineDefaults | None = None
        self._lock = threading.RLock()

    @property
    def source(self) -> str:
        """Folder or repository id of the pipeline."""
        return self._source

    @property
    def is_nano(self) -> bool:
        """Whether this is the small pipeline that ships with the package."""
        return self._source == str(nano_folder(TEXT_TO_IMAGE))

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._pipeline is not None

    @property
    def defaults(self) -> PipelineDefaults:
        """The pipeline's own call defaults and licence; reads only its small files.

        Raises:
            CheckpointError: the pipeline is not on this machine, or its description is damaged.
        """
        if self._defaults is None:
            folder = self._find_folder()
            read_model_index(folder)
            self._defaults = read_defaults(folder, self._source)
        return self._defaults

    def fetch(self) -> Path:
        """Download the pipeline unless it is on this machine; return its folder.

        Raises:
            DownloadError: it could not be fetched.
        """
        folder = find_repository(self._source, required=MODEL_INDEX)
        return folder or download_repository(self._source, patterns=DOWNLOAD_PATTERNS)

    def load(self) -> None:
        """Load the weights; does nothing if they are loaded.

        Raises:
            CheckpointError: not on this machine, incomplete, damaged, or pickled.
            InsufficientVRAMError: the GPU is too small.
            InvalidConfigError: no such device.
        """
        with self._lock:
            if self._pipeline is None:
                folder = self._find_folder()
                device = choose_device(self._device)
                precision = choose_precision(self._precision, read_model_index(folder), device)
                self._pipeline = load_pipeline(folder, precision=precision, device=device)

    def unload(self) -> None:
        """Drop the weights and give the memory back."""
        with self._lock:
            pipeline, self._pipeline = self._pipeline, None
            if pipeline is not None:
                release_pipeline(pipeline)

    def generate(
        self,
        prompt: str,
        *,
        seed: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        progress: Progress | None = None,
    ) -> TextToImageResult:
        """Draw a picture of one object.

        The same pipeline, prompt, options, seed and device type give the same picture: the noise
        is drawn on the CPU.

        Args:
            prompt: what to draw; the object-shot template is put around it.
            seed: 0 to 2^63 - 1; None draws one by chance, told in the result.
            num_inference_steps: 1 to 200; by default the pipeline's.
            guidance_scale: 0 to 50; by default the pipeline's.
            negative_prompt: what not to draw; needs a guidance scale above 1.
            progress: called with (fraction, stage) after each step; what it raises ends the work.

        Raises:
            InvalidConfigError: a prompt or option that is not accepted.
            CheckpointError, InsufficientVRAMError: the weights cannot be loaded.
            GenerationError: the pipeline failed or gave no picture.
        """
        defaults = self.defaults
        text = check_prompt(prompt)
        steps = check_steps(num_inference_steps, defaults)
        guidance = check_guidance(guidance_scale, defaults)
        negative = check_negative_prompt(negative_prompt, guidance)
        used_seed = check_seed(seed)
        template = defaults.prompt_template or get_settings().prompt_template
        full_prompt = apply_template(template, text)
        report = progress or _ignore
        with self._lock:
            report(0.0, STAGE)
            self.load()
            call = self._build_call(full_prompt, negative, used_seed)
            call |= {"num_inference_steps": steps, "guidance_scale": self._accepted(guidance)}
            if "callback_on_step_end" in self._parameters():
                call["callback_on_step_end"] = _step_reporter(report, steps)
            pixels = _run(self._pipeline, call)
            truncated = _is_truncated(self._pipeline, full_prompt)
        report(1.0, STAGE)
        return TextToImageResult(
            image=array_to_image(pixels),
            prompt=full_prompt,
            seed=used_seed,
            num_inference_steps=steps,
            guidance_scale=guidance,
            source=NANO if self.is_nano else self._source,
            license=defaults.license,
            unknown_words=_list_unknown(text, defaults),
            truncated=truncated,
        )

    def _find_folder(self) -> Path:
        if self._allow_download:
            return self.fetch()
        folder = find_repository(self._source, required=MODEL_INDEX)
        if folder is None:
            raise CheckpointError(
                f"The text-to-image pipeline {self._source!r} is not on this machine.",
                hint="Run `dream-cad pull text-to-image`, name a folder in DREAM_CAD_TEXT_TO_IMAGE,"
                " or set DREAM_CAD_CHECKPOINT=nano for the bundled one.",
                details={"source": self._source},
            )
        return folder

    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        """Return the parameters that calling the pipeline takes."""
        return inspect.signature(self._pipeline.__call__).parameters

    def _build_call(self, prompt: str, negative_prompt: str | None, seed: int) -> dict[str, Any]:
        """Return the pipeline's keyword arguments that depend on the request."""
        import torch

        if negative_prompt is not None and "negative_prompt" not in self._parameters():
            raise InvalidConfigError(
                f"The pipeline {self._source!r} has no negative prompt.", hint="Leave it out."
            )
        call = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "height": self.defaults.height,
            "width": self.defaults.width,
            "generator": torch.Generator("cpu").manual_seed(seed),
            "output_type": "np",
        }
        if self.defaults.height is not None and "use_resolution_binning" in self._parameters():
            call["use_resolution_binning"] = False  # draw the size that is named, not a near one
        return {name: value for name, value in call.items() if value is not None}

    def _accepted(self, guidance_scale: float) -> float:
        """Return the scale as the pipeline takes it: all below 1 mean none, PRX refuses them."""
        is_prx = type(self._pipeline).__name__.startswith("PRX")
        return max(guidance_scale, 1.0) if is_prx else guidance_scale


def _ignore(fraction: float, stage: str) -> None:
    """Progress callback that does nothing."""


def _choose_source(checkpoint: CheckpointChoice | None) -> str:
    """Return nano's folder or the published pipeline; explicit choices never fall back."""
    choice, nano = checkpoint or get_settings().checkpoint, nano_folder(TEXT_TO_IMAGE)
    published = get_settings().text_to_image
    if choice == "published" or (choice == "auto" and (nano is None or _is_usable(published))):
        return published
    if nano is None:
        raise CheckpointError(
            "No nano text-to-image checkpoint is shipped in this installation.",
            hint="Reinstall dream_cad, or set DREAM_CAD_CHECKPOINT=published.",
        )
    return str(nano)


def _is_usable(published: str) -> bool:
    """Tell whether the GPU is large enough and the files are on this machine."""
    if get_total_vram() < PUBLISHED_MIN_VRAM_GB:
        return False
    return find_repository(published, required=MODEL_INDEX) is not None


def _step_reporter(
    report: Progress, steps: int
) -> Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]:
    """Return a diffusers callback that reports step k of n; cancellation is what it raises."""

    def on_step_end(
        pipeline: Any, step: int, timestep: Any, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        count = int(getattr(pipeline, "num_timesteps", 0) or steps)  # some schedulers take more
        # The last step leaves room for the decoder; generate() reports 1.0 itself.
        report(min(0.95, (step + 1) / (count + 1)), STAGE)
        return kwargs

    return on_step_end


def _run(pipeline: Any, call: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Call the pipeline and return (H, W, 3) float32 in [0, 1]."""
    import torch

    try:
        pixels = np.asarray(pipeline(**call).images[0], dtype=np.float32)
    except DreamCadError:  # cancellation, raised by the progress callback
        raise
    except torch.cuda.OutOfMemoryError as error:
        raise InsufficientVRAMError(
            "The GPU ran out of memory while drawing the picture.",
            hint="Stop other work on the GPU, or use fp16.",
        ) from error
    except (RuntimeError, ValueError, TypeError) as error:
        raise GenerationError(f"The text-to-image pipeline failed: {error}") from error
    if not np.isfinite(pixels).all():
        raise GenerationError(
            "The text-to-image pipeline gave NaN instead of a picture.",
            hint="Its weights overflow in fp16: use precision bf16 or fp32.",
        )
    return np.clip(pixels, 0.0, 1.0)


def _is_truncated(pipeline: Any, prompt: str) -> bool:
    """Tell whether the (first) tokenizer cuts the prompt off."""
    tokenizer = getattr(pipeline, "tokenizer", None)
    limit = getattr(tokenizer, "model_max_length", None)
    if tokenizer is None or limit is None:
        return False
    return bool(len(tokenizer(prompt, truncation=False, verbose=False).input_ids) > limit)


def _list_unknown(prompt: str, defaults: PipelineDefaults) -> list[str]:
    return find_unknown_words(prompt, defaults.vocabulary) if defaults.vocabulary else []
