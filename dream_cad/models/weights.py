"""Which checkpoints exist, where they lie and which one a model loads. Imports no torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from dream_cad.checkpoints import nano_folder
from dream_cad.exceptions import InvalidConfigError, ModelUnavailableError, StorageError
from dream_cad.gpu import get_total_vram
from dream_cad.settings import Settings, get_settings

CheckpointKind = Literal["published", "nano", "folder"]

_HASH_BLOCK = 2**22
# Hashing less than this takes no time worth keeping a file for.
_HASH_SIDECAR_BYTES = 2**28


@dataclass(frozen=True)
class FileOrigin:
    """Where on the hub a file lies; a revision of None as in ``PublishedCheckpoint``."""

    repo_id: str
    revision: str | None
    name: str


@dataclass(frozen=True)
class PublishedFile:
    """One file of a published checkpoint; size in bytes and SHA-256 where known.

    Attributes:
        name: path in the checkpoint's folder.
        size: bytes.
        sha256: of the content.
        origin: where it lies, if not under its name in the checkpoint's own repository.
    """

    name: str
    size: int | None = None
    sha256: str | None = None
    origin: FileOrigin | None = None


@dataclass(frozen=True)
class PublishedCheckpoint:
    """A checkpoint on the Hugging Face Hub.

    Attributes:
        repo_id: of its files, unless they say otherwise.
        revision: the pinned commit; None where none is known to this version. Such a checkpoint is
            fetched only when the newest is asked for, and stays at the commit it was fetched at.
        files: all that are needed.
        license: of the weights.
    """

    repo_id: str
    revision: str | None
    files: tuple[PublishedFile, ...]
    license: str

    def origin_of(self, file: PublishedFile) -> FileOrigin:
        """Return where a file lies."""
        return file.origin or FileOrigin(self.repo_id, self.revision, file.name)

    def revisions(self) -> dict[str, str | None]:
        """Return the pinned commit, or None, of each repository."""
        origins = [self.origin_of(file) for file in self.files]
        return {origin.repo_id: origin.revision for origin in origins}


COMMIT = re.compile("[0-9a-f]{40}")
REVISIONS_FILE = "revisions.json"
"""In a checkpoint's folder: the commits that ``dream-cad pull --latest`` fetched."""


_DINOV2 = ("facebook/dinov2-with-registers-large", "e4c89a4e05589de9b3e188688a303d0f3c04d0f3")
# Sizes of the weights of TRELLIS-image-large; the two encoders of its repository are not read.
_TRELLIS_NETWORKS = {
    "ss_dec_conv3d_16l8_fp16": 147_591_972,
    "ss_flow_img_dit_L_16l8_fp16": 1_130_770_840,
    "slat_flow_img_dit_L_64l8p2_fp16": 1_203_755_136,
    "slat_dec_gs_swin8_B_64l8gs32_fp16": 171_450_952,
    "slat_dec_rf_swin8_B_64l8r16_fp16": 171_450_488,
    "slat_dec_mesh_swin8_B_64l8m256c_fp16": 181_903_412,
}

# Text variants: their letters in files' names. Decoders are those of TRELLIS-image-large.
_TRELLIS_TEXT = {"base": "B", "large": "L", "xlarge": "XL"}
_CLIP = "clip-vit-large-patch14"


def _trellis_text(size: str, letter: str) -> PublishedCheckpoint:
    return PublishedCheckpoint(
        repo_id=f"microsoft/TRELLIS-text-{size}",
        revision=None,
        files=(
            PublishedFile("pipeline.json"),
            *(
                PublishedFile(f"ckpts/{stage}_{letter}_{latent}_fp16{suffix}")
                for stage, latent in (("ss_flow_txt_dit", "16l8"), ("slat_flow_txt_dit", "64l8p2"))
                for suffix in (".json", ".safetensors")
            ),
            *(
                PublishedFile(f"{_CLIP}/{name}", origin=FileOrigin(f"openai/{_CLIP}", None, name))
                for name in ("config.json", "model.safetensors")
            ),
        ),
        license="MIT",
    )


_WEIGHTS = "diffusion_pytorch_model.safetensors"
# Hunyuan3D's texture networks by folder: what else is in the repository is not read. Sizes and
# hashes are those that public projects recorded; the autoencoder of turbo is a torch file only.
_PAINT = {
    "hunyuan3d-paint-v2-0": (
        PublishedFile(
            f"unet/{_WEIGHTS}",
            size=3_662_636_472,
            sha256="1c5ce434ba976b30bbb51a080917ecd39f8d8761691887b5df3be765ef4bd9e9",
        ),
        PublishedFile(f"vae/{_WEIGHTS}", size=167_335_310),
    ),
    "hunyuan3d-paint-v2-0-turbo": (
        PublishedFile(
            f"unet/{_WEIGHTS}",
            size=3_722_161_032,
            sha256="d6acffa4a22f4da61d87f446bfa83e7ac245481c1535fbf25b200fe4462d0b22",
        ),
        PublishedFile("vae/diffusion_pytorch_model.bin"),
    ),
    "hunyuan3d-delight-v2-0": (
        PublishedFile(
            f"unet/{_WEIGHTS}",
            sha256="0ce61d15a43d11ba19079ab8f24dfce78b876d3f5291470079ef64b17e08ca58",
        ),
        PublishedFile(f"vae/{_WEIGHTS}"),
        PublishedFile("text_encoder/config.json"),
        PublishedFile("text_encoder/model.safetensors"),
    ),
}
_PAINT_CONFIGS = ("unet/config.json", "vae/config.json", "scheduler/scheduler_config.json")

PUBLISHED: dict[str, PublishedCheckpoint] = {
    "triposr": PublishedCheckpoint(
        repo_id="stabilityai/TripoSR",
        revision="c1cf7716aed5aa6c1c5e174657791ef0e1327bde",
        files=(
            PublishedFile("config.yaml"),
            PublishedFile(
                "model.ckpt",
                sha256="429e2c6b22a0923967459de24d67f05962b235f79cde6b032aa7ed2ffcd970ee",
            ),
        ),
        license="MIT",
    ),
    "stable-fast-3d": PublishedCheckpoint(
        repo_id="stabilityai/stable-fast-3d",
        revision="f0c9a8ffd62cb1bbc8a7a53c9f87a0be1b6be778",
        files=(
            PublishedFile("config.yaml"),
            PublishedFile("model.safetensors", size=4_024_289_892),
        ),
        license="Stability AI Community License",
    ),
    "trellis": PublishedCheckpoint(
        repo_id="microsoft/TRELLIS-image-large",
        revision="25e0d31ffbebe4b5a97464dd851910efc3002d96",
        files=(
            PublishedFile("pipeline.json"),
            *(PublishedFile(f"ckpts/{name}.json") for name in _TRELLIS_NETWORKS),
            *(
                PublishedFile(f"ckpts/{name}.safetensors", size)
                for name, size in _TRELLIS_NETWORKS.items()
            ),
            *(
                PublishedFile(f"dinov2/{name}", origin=FileOrigin(*_DINOV2, name))
                for name in ("config.json", "model.safetensors")
            ),
        ),
        license="MIT",
    ),
    "hunyuan3d-mini": PublishedCheckpoint(
        repo_id="tencent/Hunyuan3D-2mini",
        revision="f90a0f7df7d5e6f71109cf333f6a95a0ae3194a6",
        files=(
            PublishedFile(
                "hunyuan3d-dit-v2-mini/config.yaml",
                size=1_628,
                sha256="cabcba7f6115752c8fe5b370e12bf714936f70377a8a80f151872f76c2d64609",
            ),
            PublishedFile(
                "hunyuan3d-dit-v2-mini/model.fp16.safetensors",
                size=3_819_958_234,
                sha256="3cc66f3bea33e4062b7dbc875ffe1d70c4888914aec3e91b60f94e9bd01b522b",
            ),
        ),
        license="Tencent Hunyuan 3D 2.0 Community License",
    ),
    # No commit of the repositories from here on is known; see ``PublishedCheckpoint.revision``.
    **{f"trellis-text-{size}": _trellis_text(size, it) for size, it in _TRELLIS_TEXT.items()},
    "hunyuan3d-paint": PublishedCheckpoint(
        repo_id="tencent/Hunyuan3D-2",
        revision=None,
        files=tuple(
            replace(file, name=f"{folder}/{file.name}")
            for folder, weights in _PAINT.items()
            for file in (*map(PublishedFile, _PAINT_CONFIGS), *weights)
        ),
        license="Tencent Hunyuan 3D 2.0 Community License",
    ),
    "mvdream": PublishedCheckpoint(
        repo_id="ashawkey/mvdream-sd2.1-diffusers",
        revision=None,
        files=(
            PublishedFile("unet/diffusion_pytorch_model.safetensors"),
            PublishedFile("vae/diffusion_pytorch_model.safetensors"),
            PublishedFile("text_encoder/model.safetensors"),
            PublishedFile(
                "lgm/model_fp16_fixrot.safetensors",
                origin=FileOrigin("ashawkey/LGM", None, "model_fp16_fixrot.safetensors"),
            ),
        ),
        license="CreativeML Open RAIL-M",
    ),
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine: where it comes from and its folder."""

    kind: CheckpointKind
    folder: Path


def published_folders(name: str, settings: Settings | None = None) -> list[Path]:
    """Return the folders in which a published checkpoint is looked for, in order.

    The last one is where ``dream-cad pull`` puts it.
    """
    settings = settings or get_settings()
    roots = [settings.model_path] if settings.model_path else []
    return [root / name for root in (*roots, settings.cache_dir / "models")]


def find_published(name: str, settings: Settings | None = None) -> Path | None:
    """Return the folder that holds every published file of ``name``, or None."""
    published = PUBLISHED.get(name)
    if published is None:
        return None
    for folder in published_folders(name, settings):
        if all((folder / file.name).is_file() for file in published.files):
            return folder
    return None


def read_revisions(folder: Path) -> dict[str, str]:
    """Return the commits by repository that a folder was fetched at; empty where none are noted."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        noted = json.loads((folder / REVISIONS_FILE).read_text("utf-8"))
        return {name: text for name, text in noted.items() if COMMIT.fullmatch(str(text))}
    return {}


def published_source(name: str, folder: Path) -> str:
    """Return the repositories and commits of a published checkpoint, for receipts."""
    noted = read_revisions(folder)
    revisions = PUBLISHED[name].revisions()
    return " ".join(
        f"{repository}@{pinned or noted.get(repository, 'unknown')}"
        for repository, pinned in revisions.items()
    )


def choose_checkpoint(
    name: str, choice: str | Path, *, min_vram_gb: float, vram_gb: float | None = None
) -> Checkpoint:
    """Decide which checkpoint of a model to load.

    Args:
        name: model name.
        choice: ``"auto"`` (the published one where a GPU with enough memory and the files are
            present, else nano; ``DREAM_CAD_CHECKPOINT`` can fix it), ``"published"``, ``"nano"``
            or a folder in the published layout. Only ``"auto"`` falls back.
        min_vram_gb: GPU memory that the published checkpoint needs.
        vram_gb: memory of the GPU to use in GB, 0 for a CPU; None asks the driver.

    Raises:
        InvalidConfigError: ``choice`` is none of these.
        ModelUnavailableError: the checkpoint asked for is not on this machine.
    """
    if choice == "auto":
        choice = get_settings().checkpoint
    if choice == "auto":
        return _choose_auto(name, min_vram_gb, vram_gb)
    if choice == "nano":
        return _nano(name)
    if choice == "published":
        return _published(name)
    folder = Path(choice).expanduser()
    if not folder.is_dir():
        raise InvalidConfigError(
            f"checkpoint is {str(choice)!r}; 'auto', 'published', 'nano' or an existing folder "
            "was expected.",
            details={"allowed": ["auto", "published", "nano"]},
        )
    return Checkpoint("folder", folder)


def _choose_auto(name: str, min_vram_gb: float, vram_gb: float | None) -> Checkpoint:
    vram = get_total_vram() if vram_gb is None else vram_gb
    if vram >= min_vram_gb and find_published(name) is not None:
        return _published(name)
    if nano_folder(name) is not None:
        return _nano(name)
    raise ModelUnavailableError(
        f"{name} has no checkpoint for this machine: there is no nano checkpoint, and the "
        f"published one needs {min_vram_gb:g} GB of GPU memory ({vram:.1f} GB here) and its files.",
        hint=f"Run 'dream-cad pull {name}' on a machine with a GPU, or name a folder.",
    )


def _nano(name: str) -> Checkpoint:
    folder = nano_folder(name)
    if folder is None:
        raise ModelUnavailableError(
            f"No nano checkpoint of {name} is part of this installation.",
            hint="Train one with jobs/train_nano.py, or name a folder.",
        )
    return Checkpoint("nano", folder)


def _published(name: str) -> Checkpoint:
    folder = find_published(name)
    if folder is None:
        looked = ", ".join(str(path) for path in published_folders(name))
        raise ModelUnavailableError(
            f"The published checkpoint of {name} is not on this machine; looked in {looked}.",
            hint=f"Run 'dream-cad pull {name}', or set DREAM_CAD_MODEL_PATH to the folder that "
            f"holds {name}/.",
        )
    return Checkpoint("published", folder)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read in blocks.

    Raises:
        StorageError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_HASH_BLOCK):
                digest.update(block)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    return digest.hexdigest()


def weights_hash(path: Path) -> str:
    """Return the SHA-256 of a weights file for receipts, computed once.

    Kept in memory and, for large files in a writable folder, in ``<file>.sha256`` with the size
    and modification time it belongs to. To verify a download use ``file_sha256``.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    return _cached_hash(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _cached_hash(path: Path, size: int, mtime_ns: int) -> str:
    if size < _HASH_SIDECAR_BYTES:
        return file_sha256(path)
    sidecar = path.with_name(f"{path.name}.sha256")
    stamp = f"{size} {mtime_ns}"
    with contextlib.suppress(OSError, ValueError):
        digest, _, known = sidecar.read_text(encoding="ascii").partition(" ")
        if known == stamp and len(digest) == 64:
            return digest
    digest = file_sha256(path)
    with contextlib.suppress(OSError):  # a read-only folder only costs the next process time
        sidecar.write_text(f"{digest} {stamp}", encoding="ascii")
    return digest
