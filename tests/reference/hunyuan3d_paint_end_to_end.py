"""The end-to-end cases of Hunyuan3D-Paint: tiny networks through the product's own painter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dream_cad.mesh.data import MeshData
from dream_cad.models.base import ProgressCallback
from dream_cad.models.hunyuan3d_mini.paint.delight import delight_with
from dream_cad.models.hunyuan3d_mini.paint.diffusion import PaintDiffusion
from dream_cad.models.hunyuan3d_mini.paint.maps import resize
from dream_cad.models.hunyuan3d_mini.paint.painter import PaintSettings, TexturePainter
from dream_cad.models.hunyuan3d_mini.paint.vae import LatentCodec, to_uint8
from tests.reference.cases import Case
from tests.reference.hunyuan3d_paint_networks import filled_vae, named_noise, paint_unet

Pixels = NDArray[np.uint8]


class CaseDiffusion:
    """The case's networks, drawing its numbers instead of seeded noise."""

    def __init__(self, case: Case) -> None:
        self._codec = LatentCodec(filled_vae(case))
        variant = "turbo" if case.config["turbo"] else "standard"
        self._diffusion = PaintDiffusion(
            paint_unet(case), self._codec, case.config["base"], variant
        )
        self._noise = named_noise(re.split(r"noise in call order |\.k:", case.data["note"])[1])

    def views(
        self,
        reference: Sequence[Pixels],
        normals: Pixels,
        positions: Pixels,
        camera_labels: Sequence[int],
        *,
        seed: int,
        num_inference_steps: int | None,
        progress: ProgressCallback,
    ) -> Pixels:
        latents = self._diffusion.denoise(
            reference, normals, positions, camera_labels, self._noise, num_inference_steps
        )
        return to_uint8(self._codec.decode(latents))


class CaseDelight:
    """What the case puts in the place of the delight network."""

    def __init__(self, formula: str) -> None:
        match = re.fullmatch(r"uint8\(([.\d]+)\*x\+([.\d]+)\)", formula)
        assert match is not None
        self._factor, self._offset = map(float, match.groups())

    def __call__(self, image: Image.Image, *, progress: ProgressCallback) -> Image.Image:
        return delight_with(self._network, image)

    def _network(self, picture: Pixels) -> Pixels:
        return (self._factor * picture + self._offset).astype(np.uint8)


def end_to_end(case: Case) -> dict[str, Any]:
    config = case.config
    painter = TexturePainter(CaseDiffusion(case), CaseDelight(config["delight_net"]))
    settings = PaintSettings(
        texture_size=config["texture"],
        view_size=config["view_size"],
        render_size=config["render"],
    )
    mesh = MeshData(case.input("vertices"), case.input("faces"))
    made = painter.paint(mesh, [Image.fromarray(case.input("image"))], settings)
    enlarged = [resize(view, config["render"]) for view in made.views]
    return {
        "texture": made.mesh.texture,
        "vertices": made.mesh.vertices,
        "faces": made.mesh.faces,
        "uv": made.mesh.uv_coords,
        "mask": made.painted,
        "views": np.stack([resize(view, config["view_size"]) for view in enlarged]),
    }


END_TO_END_STAGES = {"end_to_end": end_to_end}
