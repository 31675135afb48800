from __future__ import annotations

from pathlib import Path

from dream_cad import ModelFactory
from dream_cad.benchmark import QualityAssessor
from dream_cad.checkpoints import nano_folder
from jobs.nano.measure import f_score, held_out_items, held_out_picture


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


def test_the_bundled_checkpoint_is_small() -> None:
    folder = nano_folder("stable-fast-3d")
    assert folder is not None
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000_000
