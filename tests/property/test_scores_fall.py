"""Scores of slivers, crossings, layouts, textures, games and prints fall with their defects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from dream_cad.benchmark.aspects.game_ready import BUDGETS, GameInput, score_game_readiness
from dream_cad.benchmark.aspects.intersections import find_intersections, score_intersections
from dream_cad.benchmark.aspects.printing import measure_printability, score_printability
from dream_cad.benchmark.aspects.shape import measure_shape, score_triangles
from dream_cad.benchmark.aspects.textures import measure_textures, score_textures
from dream_cad.benchmark.aspects.thickness import measure_thickness, score_thickness
from dream_cad.benchmark.aspects.topology import edge_table
from dream_cad.benchmark.aspects.uv import UvLayout, score_uv
from dream_cad.benchmark.welded import WeldedMesh, weld

SPHERE = trimesh.creation.icosphere(3)
LAYOUT = UvLayout(
    coverage=0.7,
    overlap=0.0,
    stretch=0.9,
    out_of_bounds=0.0,
    flipped=0.0,
    islands=8,
    padding=4.0,
    texel_density=500.0,
    density_spread=1.5,
)
GAME = GameInput(40_000, 3, 2048, False, 90.0, 80.0, 90.0)
shares = st.floats(0.0, 0.5)
seeds = st.integers(0, 10_000)


def welded(mesh: trimesh.Trimesh) -> WeldedMesh:
    return weld(mesh.vertices, mesh.faces)


@given(st.floats(1.0, 6.0), st.floats(1.1, 4.0))
@settings(max_examples=15, deadline=None)
def test_longer_triangles_score_lower(low: float, more: float) -> None:
    scores = []
    for stretch in (low, low * more):
        mesh = weld(SPHERE.vertices * [stretch, 1, 1], SPHERE.faces)
        shape = measure_shape(mesh, edge_table(mesh.faces))
        scores.append(score_triangles(shape, len(mesh.faces)).value)
    assert scores[1] < scores[0] or scores == [100, 100]


@given(seeds, st.integers(0, 6), st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_more_crossings_score_lower(seed: int, few: int, more: int) -> None:
    """Needles through a sphere, each through faces of its own."""
    directions = trimesh.creation.icosphere(1).vertices
    chosen = np.random.default_rng(seed).permutation(len(directions))[: few + more]
    needles = [
        trimesh.creation.box((0.01, 0.01, 0.5)).apply_transform(
            trimesh.geometry.align_vectors([0, 0, 1], directions[row])
        )
        for row in chosen
    ]
    for needle, row in zip(needles, chosen, strict=True):
        needle.apply_translation(directions[row])
    scores = []
    for count in (few, few + more):
        mesh = trimesh.util.concatenate([SPHERE, *needles[:count]])
        found = find_intersections(welded(mesh))
        assert (found.pairs == 0) == (count == 0)
        scores.append(score_intersections(found).value)
    assert scores[1] < scores[0]


@given(
    st.sampled_from(["overlap", "out_of_bounds", "coverage", "stretch", "padding"]),
    shares,
    st.floats(0.01, 0.5),
)
@settings(max_examples=40, deadline=None)
def test_worse_layouts_score_lower(part: str, low: float, more: float) -> None:
    def layout(defect: float) -> UvLayout:
        value = {"overlap": defect, "out_of_bounds": defect, "padding": 4.0 * (1 - defect)}
        return replace(LAYOUT, **{part: value.get(part, 0.6 * (1 - defect))})

    better, worse = score_uv(layout(low)), score_uv(layout(low + more))
    assert worse.value < better.value


@given(st.integers(4, 9), st.integers(1, 3), seeds)
@settings(max_examples=15, deadline=None)
def test_smaller_and_blurred_textures_score_lower(size: int, less: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (2**size, 2**size, 3), dtype=np.uint8)
    mesh = welded(SPHERE)
    sharp = score_textures(measure_textures(mesh, noise, ["base colour"], None)).value
    small = np.ascontiguousarray(noise[:: 2**less, :: 2**less])
    assert score_textures(measure_textures(mesh, small, ["base colour"], None)).value < sharp
    flat = np.full_like(noise, 128)
    assert score_textures(measure_textures(mesh, flat, ["base colour"], None)).value < sharp


@given(st.sampled_from(sorted(BUDGETS)), st.floats(1.0, 4.0), st.floats(1.05, 4.0))
@settings(max_examples=30, deadline=None)
def test_heavier_assets_are_less_ready(profile: str, low: float, more: float) -> None:
    faces, calls, side = (getattr(BUDGETS[profile], n) for n in ("faces", "draw_calls", "texture"))  # type: ignore[index]
    for field, budget in (("faces", faces), ("draw_calls", calls), ("texture_resolution", side)):
        scores = [
            score_game_readiness(
                replace(GAME, **{field: round((budget or 1000) * times * 100)}),
                profile,  # type: ignore[arg-type]
            ).value
            for times in (low, low * more)
        ]
        assert scores[1] == scores[0] if budget is None else scores[1] < scores[0]


@given(st.sampled_from(["surface_score", "uv_score"]), st.floats(5, 90), st.floats(1, 10))
@settings(max_examples=20, deadline=None)
def test_worse_surfaces_and_layouts_are_less_ready(part: str, low: float, more: float) -> None:
    worse, better = (
        score_game_readiness(replace(GAME, **{part: value}), "desktop").value
        for value in (low, low + more)
    )
    assert worse < better


@given(st.floats(0.002, 0.008), st.floats(1.5, 6.0))
@settings(max_examples=10, deadline=None)
def test_thinner_walls_score_lower(wall: float, times: float) -> None:
    """Tubes with walls of two widths, half the height each: the thinner part grows thinner."""
    scores = []
    for width in (wall * times * 2, wall):
        tube = welded(trimesh.creation.annulus(0.5 - width / 2, 0.5, 1.0, sections=96))
        walls = measure_thickness(tube)
        printed = measure_printability(tube, walls, is_watertight=True)
        scores.append((score_thickness(walls).value, score_printability(printed, 100, 100).value))
    (thick, thick_print), (thin, thin_print) = scores
    assert thin <= thick
    assert thin_print <= thick_print
    if wall < 0.005 and wall * times > 0.015:
        assert thin < thick
        assert thin_print < thick_print


@given(shares, st.floats(0.01, 0.4))
@settings(max_examples=20, deadline=None)
def test_more_overhang_and_leaks_print_worse(low: float, more: float) -> None:
    tube = welded(trimesh.creation.annulus(0.3, 0.5, 1.0))
    found = measure_printability(tube, measure_thickness(tube), is_watertight=True)
    less, hanging = (
        score_printability(replace(found, overhang=share), 100, 100).value
        for share in (low, low + more)
    )
    assert hanging < less
    closed, open_ = (
        score_printability(found, 100 * (1 - share), 100).value for share in (low, low + more)
    )
    assert open_ < closed
