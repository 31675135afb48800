"""The plain way to unwrap and bake: what texturing is timed against.

Face by face and texel by texel, by the same rules as dream_cad.mesh (box layout with layers, texel
centres, published dilation). Python numbers are used throughout: NumPy's are slower one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dream_cad.mesh.box_unwrap import (
    LEFTOVER,
    SIDES,
    align,
    place,
    project_on_box,
    rotate_sides,
    split_corners,
)
from dream_cad.mesh.unwrap import UvAtlas
from dream_cad.mesh.uv_overlap import MIN_SHARED_AREA

Point = tuple[float, float]
Triangle = tuple[Point, Point, Point]
_CELLS = 128


def unwrap(
    vertices: NDArray[np.float32], faces: NDArray[np.int32], normals: NDArray[np.float32]
) -> UvAtlas:
    """Lay faces out on a box; the overlaps, nearly all of the work, pair by pair."""
    positions, directions = align(vertices, normals)
    side, uvs = project_on_box(positions, directions, faces)
    uvs = rotate_sides(positions, directions, faces, uvs, side)
    triangles: list[Triangle] = [
        ((a, b), (c, d), (e, f)) for (a, b), (c, d), (e, f) in uvs.tolist()
    ]
    centroids = positions[faces].mean(axis=1).tolist()
    layer = side.tolist()
    for is_second in (False, True):
        chosen = [f for f in range(len(layer)) if not is_second or layer[f] >= SIDES]
        hidden = set()
        for first, second in _near_pairs(triangles, layer, chosen):
            if triangles[first] != triangles[second] and _overlap(
                triangles[first], triangles[second]
            ):
                group = layer[first]
                axis = group % SIDES // 2
                ahead = centroids[first][axis] - centroids[second][axis]
                hidden.add(first if (ahead > 0) == (group % 2 == 0) and ahead else second)
        for face in hidden:
            layer[face] = min(layer[face] + SIDES, LEFTOVER)
    return split_corners(faces, place(uvs, np.array(layer), island_padding=0.02))


def _near_pairs(
    triangles: list[Triangle], layer: list[int], chosen: list[int]
) -> set[tuple[int, int]]:
    cells = defaultdict(list)
    for face in chosen:
        (a, b), (c, d), (e, f) = triangles[face]
        for x in range(int(min(a, c, e) * _CELLS), int(max(a, c, e) * _CELLS) + 1):
            for y in range(int(min(b, d, f) * _CELLS), int(max(b, d, f) * _CELLS) + 1):
                cells[layer[face], x, y].append(face)
    return {
        (first, second)
        for members in cells.values()
        for place, first in enumerate(members)
        for second in members[place + 1 :]
    }


def _overlap(first: Triangle, second: Triangle) -> bool:
    polygon = list(_counter_clockwise(first))
    other = _counter_clockwise(second)
    for corner in range(3):
        (ax, ay), (bx, by) = other[corner], other[(corner + 1) % 3]
        clipped: list[Point] = []
        inside = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in polygon]
        for k, (x, y) in enumerate(polygon):
            here, following = inside[k], inside[(k + 1) % len(polygon)]
            nx, ny = polygon[(k + 1) % len(polygon)]
            if here >= 0:
                clipped.append((x, y))
            if here * following < 0:
                step = here / (here - following)
                clipped.append((x + step * (nx - x), y + step * (ny - y)))
        polygon = clipped
    return _area(polygon) >= MIN_SHARED_AREA


def _area(polygon: list[Point]) -> float:
    following = polygon[1:] + polygon[:1]
    return sum(x * v - y * u for (x, y), (u, v) in zip(polygon, following, strict=True)) / 2


def _counter_clockwise(triangle: Triangle) -> Triangle:
    return triangle if _area(list(triangle)) > 0 else (triangle[0], triangle[2], triangle[1])


def rasterize(atlas: UvAtlas, size: int) -> Iterator[tuple[int, int, float, float, float]]:
    """Yield (texel, face, weights of its three corners) for every texel under every face."""
    corners = atlas.uvs[atlas.faces].tolist()
    for face, ((au, av), (bu, bv), (cu, cv)) in enumerate(corners):
        ax, bx, cx = au * size - 0.5, bu * size - 0.5, cu * size - 0.5
        ay, by, cy = (1 - av) * size - 0.5, (1 - bv) * size - 0.5, (1 - cv) * size - 0.5
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0:
            continue
        for row in range(max(int(min(ay, by, cy)), 0), min(int(max(ay, by, cy)) + 1, size - 1) + 1):
            for column in range(
                max(int(min(ax, bx, cx)), 0), min(int(max(ax, bx, cx)) + 1, size - 1) + 1
            ):
                b = ((column - ax) * (cy - ay) - (row - ay) * (cx - ax)) / area
                c = ((bx - ax) * (row - ay) - (by - ay) * (column - ax)) / area
                if b >= 0 and c >= 0 and b + c <= 1:
                    yield row * size + column, face, 1 - b - c, b, c


def interpolate(
    hits: dict[int, tuple[int, float, float, float]], atlas: UvAtlas, values: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Mix attributes (V, C) at every texel; returns (P, C)."""
    faces, rows = atlas.faces.tolist(), values.tolist()
    mixed = []
    for face, a, b, c in hits.values():
        i, j, k = faces[face]
        mixed.append(
            [a * x + b * y + c * z for x, y, z in zip(rows[i], rows[j], rows[k], strict=True)]
        )
    return np.array(mixed, dtype=np.float32)


def dilate(image: NDArray[np.float32], mask: NDArray[np.bool_], rounds: int) -> NDArray[np.float32]:
    """Grow the filled texels round by round, looking at every texel."""
    size = len(mask)
    filled = {
        row * size + column: tuple(image[row, column].tolist())
        for row, column in np.argwhere(mask).tolist()
    }
    for _ in range(rounds):
        wider = dict.fromkeys(filled, None)
        for texel in filled:
            wider.update(dict.fromkeys(_around(texel, size), None))
        new = {}
        for texel in wider:
            if texel in filled:
                continue
            total = [0.0, 0.0, 0.0]
            for middle in _around(texel, size):
                if not 0 < middle % size < size - 1 or not 0 < middle // size < size - 1:
                    continue
                members = [filled[t] for t in _around(middle, size) if t in filled]
                for channel in range(3):
                    total[channel] += sum(m[channel] for m in members) / max(len(members), 1)
            count = sum(1 for t in _around(texel, size) if t in wider)
            new[texel] = tuple(value / max(count, 1) for value in total)
        filled |= new
    out = np.zeros_like(image)
    for texel, value in filled.items():
        out[texel // size, texel % size] = value
    return out


def _around(texel: int, size: int) -> list[int]:
    row, column = divmod(texel, size)
    return [
        r * size + c
        for r in range(max(row - 1, 0), min(row + 2, size))
        for c in range(max(column - 1, 0), min(column + 2, size))
    ]
