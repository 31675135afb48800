from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dream_cad import ModelFactory
from dream_cad.benchmark import QualityAssessor
from dream_cad.checkpoints import nano_folder
from dream_cad.models.stable_fast_3d.pipeline import StableFast3DPipeline
from dream_cad.models.stable_fast_3d.weights import load_network
from jobs.nano.dataset import HELD_OUT_SEED
from jobs.nano.material_data import material_picture
from jobs.nano.measure import f_score, held_out_items, held_out_picture
from jobs.nano.shading import Material


def test_the_bundled_checkpoint_reconstructs_what_it_never_saw(tmp_path: Path) -> None:
    item = held_out_items(14)[13]
    assert item.category == "bottle"
    model = ModelFactory.create_model("stable-fast-3d", checkpoint="nano", device="cpu")
    result = model.generate_from_image(held_out_picture(item, 13), texture_size=256)
    assert f_score(result, item, 0) > 0.5
    assert result.texture is not None
    pink = result.texture.reshape(-1, 3).mean(axis=0)
    assert pink[0] > pink[1] + 40
    metrics = QualityAssessor().assess_mesh_file(Path(result.save(tmp_path / "bottle.glb")))
    assert metrics.is_watertight
    assert metrics.uv_overlap == 0
    assert metrics.uv_coverage > 50


def test_the_bundled_checkpoint_tells_metal_from_matt() -> None:
    folder = nano_folder("stable-fast-3d")
    assert folder is not None
    pipeline = StableFast3DPipeline(load_network(folder))

    def seen(material: Material) -> np.ndarray:
        pictures = [
            Image.fromarray(material_picture(item, HELD_OUT_SEED + index, material=material))
            for index, item in enumerate(held_out_items(24))
            if index % 3 == 1
        ]
        return np.array([(code.roughness, code.metallic) for code in pipeline.encode(pictures)])

    matt, polished = seen(Material(0.9, 0.0)), seen(Material(0.1, 1.0))
    assert (matt[:, 1] < 0.5).all()
    assert (polished[:, 1] > 0.5).all()
    assert matt[:, 0].mean() > polished[:, 0].mean() + 0.2


def test_the_bundled_checkpoint_is_small() -> None:
    folder = nano_folder("stable-fast-3d")
    assert folder is not None
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000_000
