from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest
import trimesh

from dream_cad.exceptions import InvalidConfigError
from dream_cad.profiles import PROFILES, Package, build_package
from dream_cad.profiles.profile import name_words
from tests.unit.mesh.gltf import needs_validator, problems
from tests.unit.mesh.shapes import colored_sphere
from tests.unit.profiles.test_hulls import table

TITLE = "A red   wooden Stühl!"


@pytest.fixture(scope="module")
def packages(monkeypatch_module: pytest.MonkeyPatch) -> dict[str, Package]:
    """One package of each profile, with small textures to be quick."""
    mesh = colored_sphere(3)
    return {name: build_package(mesh, name, title=TITLE, receipt={"seed": 3}) for name in PROFILES}


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, profile in list(PROFILES.items()):
            small = type(profile)(
                **{
                    **profile.__dict__,
                    "faces": tuple(max(budget // 20, 100) for budget in profile.faces),
                    "texture_sizes": tuple(size // 8 for size in profile.texture_sizes),
                }
            )
            patch.setitem(PROFILES, name, small)
        yield patch


FILES = {
    "unity-mobile-prop": [
        "RedWoodenStuhl_LOD0.glb",
        "RedWoodenStuhl_LOD1.glb",
        "RedWoodenStuhl_Collider.glb",
    ],
    "unreal-hero": [
        "SM_RedWoodenStuhl.glb",
        "SM_RedWoodenStuhl_LOD1.glb",
        "SM_RedWoodenStuhl_LOD2.glb",
        "SM_RedWoodenStuhl_LOD3.glb",
    ],
    "web": ["red-wooden-stuhl.glb", "red-wooden-stuhl-lod1.glb", "red-wooden-stuhl.draco.glb"],
    "print-fdm": ["red-wooden-stuhl.stl", "red-wooden-stuhl.3mf"],
}


@pytest.mark.parametrize("name", PROFILES)
def test_a_package_is_whole(packages: dict[str, Package], name: str) -> None:
    made = packages[name]
    assert list(made.files) == [*FILES[name], "preview.png", "manifest.json"]
    with zipfile.ZipFile(io.BytesIO(made.zip_bytes())) as archive:
        assert archive.testzip() is None
        manifest = json.loads(archive.read("manifest.json"))
        for entry in manifest["files"]:
            content = archive.read(entry["name"])
            assert len(content) == entry["bytes"]
            assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    assert manifest["profile"] == name
    assert manifest["receipt"] == {"seed": 3}
    assert manifest["title"] == TITLE
    assert max(manifest["size"]) == pytest.approx(PROFILES[name].size, rel=1e-3)


@needs_validator
def test_every_glb_is_valid(packages: dict[str, Package]) -> None:
    contents = {
        name: content
        for made in packages.values()
        for name, content in made.files.items()
        if name.endswith(".glb")
    }
    assert len(contents) == 10
    assert [problems(content) for content in contents.values()] == [[]] * 10


@pytest.mark.parametrize("name", ["unity-mobile-prop", "unreal-hero", "web"])
def test_meshes_stand_on_the_origin_in_metres(packages: dict[str, Package], name: str) -> None:
    made, first = packages[name], FILES[name][0]
    scene = trimesh.load_scene(io.BytesIO(made.files[first]), file_type="glb")
    low, high = np.asarray(scene.bounds)
    assert low[1] == pytest.approx(0, abs=0.01)
    assert (low + high)[[0, 2]] == pytest.approx(0, abs=0.02)
    assert (high - low).max() == pytest.approx(1, abs=0.02)
    entries = {entry["name"]: entry for entry in made.manifest["files"]}
    levels = [entry for entry in entries.values() if "level" in entry]
    budgets = PROFILES[name].faces
    assert all(entry["faces"] <= budgets[entry["level"]] + 4 for entry in levels)
    assert levels[0]["texture"] == [PROFILES[name].texture_sizes[0]] * 2


def test_unreal_knows_hulls_by_their_names() -> None:
    made = build_package(table(), "unreal-hero", title="table")
    scene = trimesh.load_scene(io.BytesIO(made.files["SM_Table.glb"]), file_type="glb")
    names = sorted(scene.geometry)
    assert names[0] == "SM_Table"
    assert names[1:] == [f"UCX_SM_Table_{number:02d}" for number in range(len(names) - 1)]
    assert len(names) > 5
    assert all(scene.geometry[name].is_convex for name in names[1:])


def test_prints_lie_on_the_bed_in_millimetres_facing_the_user() -> None:
    mesh = table()
    mesh.vertices[mesh.vertices[:, 2] > 0.44, 2] += 0.2  # the front sticks out
    made = build_package(mesh, "print-fdm", title="table", size=120)
    body = trimesh.load(io.BytesIO(made.files["table.stl"]), file_type="stl")
    low, high = np.asarray(body.bounds)
    assert low[2] == pytest.approx(0, abs=1e-4)
    assert (high - low).max() == pytest.approx(120, abs=1e-3)
    assert made.manifest["unit"] == "mm"
    assert made.manifest["volume_cm3"] == pytest.approx(body.volume / 1000, rel=1e-2)
    assert (high - low)[1] > (high - low)[0]  # what was depth along z is depth along y


def test_the_same_mesh_gives_the_same_bytes() -> None:
    first, second = (build_package(table(), "print-fdm").zip_bytes() for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("the Chair", ["chair"]),
        ("a", ["a"]),
        ("", ["mesh"]),
        ("椅子", ["mesh"]),
        ("3 chairs", ["mesh", "3", "chairs"]),
        ("../../etc/passwd", ["etc", "passwd"]),
        ("word " * 20, ["word"] * 8),
    ],
)
def test_names(title: str, words: list[str]) -> None:
    assert name_words(title) == words


def test_bad_input() -> None:
    with pytest.raises(InvalidConfigError, match="not a profile") as caught:
        build_package(table(), "godot")
    assert "web" in caught.value.details["allowed"]
    for size in (0.0, -1.0, float("nan"), float("inf"), 1e9):
        with pytest.raises(InvalidConfigError, match="size"):
            build_package(table(), "web", size=size)
