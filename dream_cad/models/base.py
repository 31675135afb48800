"""What every model is and what it returns: Model3D, GenerationResult, ModelCapabilities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import InvalidConfigError
from dream_cad.mesh.data import MeshData

if TYPE_CHECKING:
    from PIL.Image import Image
    from pydantic import BaseModel

ImageInput = "Image | NDArray[Any] | str | Path | bytes"
ProgressCallback = Callable[[float, str], None]
"""Called with (fraction in [0, 1], stage name); may raise GenerationCancelledError to stop."""


def ignore_progress(fraction: float, stage: str) -> None:
    """Progress callback that does nothing."""


@dataclass(frozen=True)
class ModelCapabilities:
    """What a model needs and can do. Memory in GB (10^9 bytes) of GPU memory."""

    min_vram_gb: float
    recommended_vram_gb: float
    supports_text_to_3d: bool = True
    supports_image_to_3d: bool = True
    supports_multi_view: bool = False
    output_formats: list[str] = field(default_factory=lambda: ["obj", "ply", "stl", "glb"])
    has_pbr_materials: bool = False
    has_uv_unwrapping: bool = False
    typical_generation_time: str = "unknown"
    max_resolution: int = 256
    license_type: str = "unknown"


@dataclass
class GenerationResult:
    """A generated mesh and how it was made.

    Attributes:
        vertices: (V, 3) float32, glTF frame, centred unit bounding cube.
        faces: (F, 3) int32, counter-clockwise seen from outside.
        vertex_colors: (V, 3) uint8 sRGB, or None.
        uv_coords: (V, 2) float32, v up, or None.
        texture: (H, W, 3) uint8 sRGB, or None.
        materials: material maps and factors, see ``MeshData``, or None.
        metadata: the receipt: seed, options, checkpoint, weights hash, versions, device, input
            SHA-256, and with DREAM_CAD_PROFILE the seconds of each stage.
        generation_time: seconds from call to result.
        model_name: the model that made it.
        files: what else came about, by file name: ``views.png``, ``splats.ply``.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    vertex_colors: NDArray[np.uint8] | None = None
    uv_coords: NDArray[np.float32] | None = None
    texture: NDArray[np.uint8] | None = None
    materials: dict[str, Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    generation_time: float = 0.0
    model_name: str = ""
    files: dict[str, bytes] = field(default_factory=dict)

    def to_mesh(self) -> MeshData:
        """Return the mesh record that dream_cad.mesh works on (arrays are shared, not copied)."""
        return MeshData(
            vertices=self.vertices,
            faces=self.faces,
            vertex_colors=self.vertex_colors,
            uv_coords=self.uv_coords,
            texture=self.texture,
            materials=self.materials,
            extras=self.metadata,
        )

    def save(self, path: str | Path, format: str | None = None) -> str:
        """Write the mesh; the format is inferred from the path's suffix unless given.

        Returns:
            The path of the file written.

        Raises:
            FileFormatError: the format is not one of obj, ply, stl, glb.
            StorageError: the file could not be written (disk full, no permission).
        """
        from dream_cad.mesh.export import export_mesh

        return str(export_mesh(self.to_mesh(), Path(path), format))

    def save_files(self, folder: str | Path) -> list[str]:
        """Write what came about beside the mesh (``files``) into a folder, under its names.

        Returns:
            The paths written.

        Raises:
            StorageError: a file could not be written.
        """
        from dream_cad.mesh.export import write_whole

        paths = [Path(folder) / name for name in self.files]
        for path, content in zip(paths, self.files.values(), strict=True):
            write_whole(path, content)
        return [str(path) for path in paths]

    def preview(self, views: int = 4, size: int = 384) -> Image:
        """Render a turntable sheet of ``views`` pictures, ``size`` pixels high each."""
        from PIL import Image as PilImage

        from dream_cad.mesh.render import render_turntable

        return PilImage.fromarray(render_turntable(self.to_mesh(), views=views, size=size))


class Model3D(ABC):
    """A model that turns text or an image into a mesh.

    Subclasses load their weights in ``load_model`` and drop them in ``unload_model``; both may
    be left as they are by models without weights. Usable as a context manager: the memory is
    freed on leaving it.

    Args:
        name: the registered name.
        **kwargs: model-specific options, kept in ``self.config``.
    """

    def __init__(self, name: str, **kwargs: Any) -> None:
        self._name = name
        self._is_loaded = False
        self.config: dict[str, Any] = kwargs

    @property
    def name(self) -> str:
        """Model identifier."""
        return self._name

    @property
    def capabilities(self) -> ModelCapabilities:
        """Requirements and abilities, as registered."""
        from dream_cad.models.registry import ModelRegistry

        return ModelRegistry().require_capabilities(self._name)

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._is_loaded

    text_through_image: ClassVar[bool] = False
    """Whether text is first made into a picture; a server then runs the shared text stage."""

    @classmethod
    def draws_picture_first(cls, options: Mapping[str, Any]) -> bool:
        """Tell whether a model made with these constructor options has text drawn first."""
        return cls.text_through_image

    @classmethod
    def options_model(cls) -> type[BaseModel] | None:
        """Return the pydantic model of the generation options, the one place of their checks.

        The library, the command line and the HTTP API validate through it. None, the default,
        means that the model states none and any JSON value passes.
        """
        return None

    @abstractmethod
    def generate_from_text(self, prompt: str, **kwargs: Any) -> GenerationResult:
        """Generate a mesh from a text prompt."""

    @abstractmethod
    def generate_from_image(self, image: Any, **kwargs: Any) -> GenerationResult:
        """Generate a mesh from a PIL image, an array, or a path."""

    @classmethod
    def view_names(cls) -> tuple[str, ...] | None:
        """Return the views that ``generate_from_views`` knows; empty if it takes any pictures.

        None says that the model takes one picture only.
        """
        return None

    def generate_from_views(
        self, views: Mapping[str, Any] | Sequence[Any], **kwargs: Any
    ) -> GenerationResult:
        """Generate a mesh from several pictures of one object, by view or in any order.

        Raises:
            InvalidConfigError: the model takes one picture only.
        """
        raise InvalidConfigError(
            f"{self._name} takes one picture, not several.",
            hint="Models with supports_multi_view take several.",
        )

    @classmethod
    def paints_meshes(cls) -> bool:
        """Return whether ``texture_mesh`` is there."""
        return False

    def texture_mesh(
        self,
        mesh: Any,
        *,
        image: Any = None,
        prompt: str | None = None,
        **kwargs: Any,
    ) -> GenerationResult:
        """Paint a mesh that is there, after a picture or a prompt.

        Raises:
            InvalidConfigError: the model makes meshes only.
        """
        raise InvalidConfigError(
            f"{self._name} makes meshes; it cannot texture one that is given.",
            hint="hunyuan3d-mini can.",
        )

    @classmethod
    def makes_variants(cls) -> bool:
        """Return whether ``generate_variant`` is there."""
        return False

    def generate_variant(
        self,
        mesh: Any,
        *,
        prompt: str | None = None,
        image: Any = None,
        **kwargs: Any,
    ) -> GenerationResult:
        """Keep a mesh's coarse shape, and give it other details and colours.

        Raises:
            InvalidConfigError: the model starts from text and pictures only.
        """
        raise InvalidConfigError(
            f"{self._name} makes no variants of a mesh that is given.", hint="trellis does."
        )

    def save(self, result: GenerationResult, path: str | Path, format: str | None = None) -> str:
        """Write ``result``; see GenerationResult.save."""
        return result.save(path, format)

    def load_model(self) -> None:
        """Load the weights into memory; called automatically by the first generation."""
        self._is_loaded = True

    def warm_up(self) -> None:
        """Pay now for what the first generation would pay for; by default, load the weights.

        Servers call it once, before they announce the model ready.
        """
        if not self.is_loaded:
            self.load_model()

    def unload_model(self) -> None:
        """Drop the weights and give the memory back."""
        self._is_loaded = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.unload_model()
