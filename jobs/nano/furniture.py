"""Parametric furniture: chair, armchair, stool, table, bench, bed, shelf, lamp, sofa."""

from __future__ import annotations

from numpy.random import Generator

from jobs.nano.primitives import Primitive, box, cone, ellipsoid

Parts = list[Primitive]


def legs(
    rng: Generator, width: float, depth: float, height: float, thickness: float, slot: int = 0
) -> Parts:
    """Four legs under a (depth along x, width along y) plate whose underside is at ``height``."""
    is_round = rng.random() < 0.4
    parts: Parts = []
    for sx in (-1, 1):
        for sy in (-1, 1):
            center = (
                sx * 0.5 * (depth - thickness),
                sy * 0.5 * (width - thickness),
                0.5 * height,
            )
            if is_round:
                parts.append(cone(center, 0.42 * thickness, 0.55 * thickness, height, slot=slot))
            else:
                parts.append(box(center, (thickness, thickness, height), slot=slot))
    return parts


def chair(rng: Generator) -> Parts:
    """A chair with four legs, a seat and a back."""
    width, depth = rng.uniform(0.44, 0.56), rng.uniform(0.44, 0.54)
    seat_height, seat = rng.uniform(0.38, 0.48), rng.uniform(0.08, 0.12)
    leg = rng.uniform(0.085, 0.12)
    back = rng.uniform(0.42, 0.58)
    back_thickness = rng.uniform(0.08, 0.11)
    top = seat_height + seat
    parts = legs(rng, width, depth, seat_height, leg)
    parts.append(box((0, 0, seat_height + 0.5 * seat), (depth, width, seat)))
    x = -0.5 * (depth - back_thickness)
    if rng.random() < 0.6:
        parts.append(box((x, 0, top + 0.5 * back), (back_thickness, width, back)))
    else:
        for sy in (-1, 1):
            y = sy * 0.5 * (width - 0.1)
            parts.append(box((x, y, top + 0.5 * back), (back_thickness, 0.1, back)))
        for level in (0.42, 0.86):
            parts.append(box((x, 0, top + level * back), (back_thickness, width, 0.25 * back)))
    return parts


def armchair(rng: Generator) -> Parts:
    """A low upholstered chair with arms."""
    width, depth = rng.uniform(0.7, 0.85), rng.uniform(0.62, 0.75)
    seat, back = rng.uniform(0.28, 0.36), rng.uniform(0.62, 0.78)
    arm, arm_height = rng.uniform(0.13, 0.18), rng.uniform(0.42, 0.52)
    parts = [box((0, 0, 0.5 * seat), (depth, width, seat), rounding=0.05)]
    parts.append(box((-0.5 * (depth - 0.18), 0, 0.5 * back), (0.18, width, back), rounding=0.06))
    for sy in (-1, 1):
        center = (0, sy * 0.5 * (width - arm), 0.5 * arm_height)
        parts.append(box(center, (depth, arm, arm_height), rounding=0.05))
    return parts


def sofa(rng: Generator) -> Parts:
    """A wide upholstered seat with arms and two cushions."""
    width, depth = rng.uniform(1.4, 1.7), rng.uniform(0.6, 0.72)
    seat, back, arm = rng.uniform(0.28, 0.34), rng.uniform(0.58, 0.72), rng.uniform(0.16, 0.2)
    parts = [box((0, 0, 0.5 * seat), (depth, width, seat), rounding=0.05)]
    parts.append(box((-0.5 * (depth - 0.2), 0, 0.5 * back), (0.2, width, back), rounding=0.06))
    arms = [(0.0, side * 0.5 * (width - arm), 0.24) for side in (-1, 1)]
    return parts + [box(center, (depth, arm, 0.48), rounding=0.05) for center in arms]


def stool(rng: Generator) -> Parts:
    """A seat on legs without a back."""
    height, seat = rng.uniform(0.5, 0.75), rng.uniform(0.09, 0.14)
    radius = rng.uniform(0.24, 0.32)
    parts = legs(rng, 1.5 * radius, 1.5 * radius, height, rng.uniform(0.09, 0.12))
    center = (0.0, 0.0, height + 0.5 * seat)
    if rng.random() < 0.7:
        parts.append(cone(center, radius, radius, seat))
    else:
        parts.append(box(center, (1.8 * radius, 1.8 * radius, seat)))
    return parts


def table(rng: Generator) -> Parts:
    """A wide plate on four legs, or a round one on a column."""
    height, plate = rng.uniform(0.5, 0.7), rng.uniform(0.08, 0.12)
    if rng.random() < 0.3:
        radius = rng.uniform(0.45, 0.6)
        return [
            cone((0, 0, height + 0.5 * plate), radius, radius, plate),
            cone((0, 0, 0.5 * height), 0.09, 0.09, height),
            cone((0, 0, 0.05), 0.55 * radius, 0.45 * radius, 0.1),
        ]
    width, depth = rng.uniform(0.9, 1.3), rng.uniform(0.65, 0.85)
    parts = legs(rng, width, depth, height, rng.uniform(0.09, 0.13))
    parts.append(box((0, 0, height + 0.5 * plate), (depth, width, plate)))
    return parts


def bench(rng: Generator) -> Parts:
    """A long low seat on two side boards."""
    width, depth = rng.uniform(1.1, 1.5), rng.uniform(0.34, 0.42)
    height, seat = rng.uniform(0.32, 0.42), rng.uniform(0.09, 0.12)
    parts = [box((0, 0, height + 0.5 * seat), (depth, width, seat))]
    for sy in (-1, 1):
        y = sy * (0.5 * width - 0.16)
        parts.append(box((0, y, 0.5 * height), (0.85 * depth, 0.12, height)))
    return parts


def bed(rng: Generator) -> Parts:
    """A mattress on a frame with a headboard and a pillow; the head is at the back."""
    length, width = rng.uniform(1.4, 1.7), rng.uniform(0.85, 1.15)
    frame, mattress = rng.uniform(0.16, 0.22), rng.uniform(0.14, 0.2)
    head = rng.uniform(0.6, 0.8)
    top = frame + mattress
    return [
        box((0, 0, 0.5 * frame), (length, width, frame), slot=3),
        box((0, 0, frame + 0.5 * mattress), (length, 0.97 * width, mattress), rounding=0.05),
        box((-0.5 * length, 0, 0.5 * head), (0.1, width, head), slot=3),
        box((-0.36 * length, 0, top + 0.05), (0.26, 0.7 * width, 0.12), slot=1, rounding=0.05),
    ]


def shelf(rng: Generator) -> Parts:
    """A bookcase: two sides, a back and three to five boards."""
    width, depth = rng.uniform(0.6, 0.85), rng.uniform(0.28, 0.36)
    height, board = rng.uniform(1.0, 1.3), 0.07
    count = int(rng.integers(3, 6))
    parts = [box((-0.5 * depth + 0.035, 0, 0.5 * height), (0.07, width, height))]
    for sy in (-1, 1):
        center = (0, sy * 0.5 * (width - board), 0.5 * height)
        parts.append(box(center, (depth, board, height)))
    for index in range(count):
        z = 0.5 * board + index * (height - board) / (count - 1)
        parts.append(box((0, 0, z), (depth, width, board)))
    return parts


def lamp(rng: Generator) -> Parts:
    """A foot, a pole and a conical shade."""
    height = rng.uniform(0.75, 1.1)
    shade, bottom = rng.uniform(0.3, 0.4), rng.uniform(0.26, 0.34)
    foot = rng.uniform(0.18, 0.24)
    return [
        cone((0, 0, 0.05), foot, 0.9 * foot, 0.1, slot=2),
        cone((0, 0, 0.5 * height), 0.055, 0.055, height, slot=2),
        cone((0, 0, height), bottom, rng.uniform(0.45, 0.65) * bottom, shade),
    ]


def cabinet(rng: Generator) -> Parts:
    """A closed cupboard with two doors and knobs."""
    width, depth, height = rng.uniform(0.6, 0.9), rng.uniform(0.4, 0.5), rng.uniform(0.7, 1.2)
    front = 0.5 * depth
    parts = [box((0, 0, 0.5 * height), (depth, width, height))]
    for sy in (-1, 1):
        door = (0.05, 0.44 * width, 0.84 * height)
        parts.append(box((front, sy * 0.235 * width, 0.5 * height), door))
        knob = (front + 0.04, sy * 0.07, 0.5 * height)
        parts.append(ellipsoid(knob, (0.035, 0.035, 0.035), slot=2))
    parts.append(box((0, 0, height), (1.06 * depth, 1.06 * width, 0.06)))
    return parts
