"""Parametric vessels, tools, vehicles, buildings and figures."""

from __future__ import annotations

from numpy.random import Generator

from jobs.nano.furniture import Parts
from jobs.nano.primitives import box, cone, ellipsoid, rotation, torus

_LIE_ALONG_Y = rotation("x", 90)
_LIE_ALONG_X = rotation("y", 90)


def vase(rng: Generator) -> Parts:
    """A belly, a neck and a lip with an opening."""
    belly, height = rng.uniform(0.24, 0.34), rng.uniform(0.34, 0.46)
    neck, neck_height = rng.uniform(0.1, 0.15), rng.uniform(0.18, 0.34)
    lip = rng.uniform(0.16, 0.24)
    top = 1.6 * height + neck_height
    return [
        cone((0, 0, 0.05), 0.6 * belly, 0.75 * belly, 0.1),
        ellipsoid((0, 0, 0.9 * height), (belly, belly, 0.9 * height)),
        cone((0, 0, 1.6 * height + 0.4 * neck_height), neck, neck, neck_height),
        cone((0, 0, top), neck, lip, 0.14),
        cone((0, 0, top + 0.02), 0.5 * neck, 0.62 * lip, 0.16, carve=True),
    ]


def bowl(rng: Generator) -> Parts:
    """A wide thick-walled bowl on a foot."""
    radius, height = rng.uniform(0.42, 0.5), rng.uniform(0.3, 0.42)
    wall = rng.uniform(0.09, 0.12)
    return [
        cone((0, 0, 0.5 * height), 0.5 * radius, radius, height),
        cone((0, 0, 0.03), 0.5 * radius, 0.45 * radius, 0.1),
        cone(
            (0, 0, 0.5 * height + wall),
            0.5 * radius - 0.3 * wall,
            radius - wall,
            height,
            carve=True,
        ),
    ]


def mug(rng: Generator) -> Parts:
    """A cylinder with an opening and a ring handle on its right."""
    radius, height = rng.uniform(0.26, 0.34), rng.uniform(0.56, 0.74)
    ring = rng.uniform(0.17, 0.22)
    handle = torus((0, radius + 0.35 * ring, 0.5 * height), ring, 0.055, turn=rotation("y", 90))
    return [
        handle,
        cone((0, 0, 0.5 * height), radius, radius, height),
        cone((0, 0, 0.5 * height + 0.12), radius - 0.08, radius - 0.08, height, carve=True),
    ]


def bottle(rng: Generator) -> Parts:
    """A body, shoulders, a neck and a cap."""
    radius, height = rng.uniform(0.17, 0.24), rng.uniform(0.5, 0.68)
    shoulder, neck = rng.uniform(0.14, 0.22), rng.uniform(0.065, 0.085)
    return [
        cone((0, 0, 0.5 * height), radius, radius, height),
        cone((0, 0, height + 0.5 * shoulder), radius, neck, shoulder),
        cone((0, 0, height + shoulder + 0.07), neck, neck, 0.16),
        cone((0, 0, height + shoulder + 0.18), 1.25 * neck, 1.25 * neck, 0.1, slot=1),
    ]


def sword(rng: Generator) -> Parts:
    """An upright sword, point up: pommel, grip, guard and blade."""
    blade, width = rng.uniform(0.8, 1.05), rng.uniform(0.13, 0.18)
    guard, grip = rng.uniform(0.42, 0.56), rng.uniform(0.2, 0.28)
    base = 0.1 + grip
    return [
        ellipsoid((0, 0, 0.07), (0.08, 0.08, 0.08), slot=2),
        cone((0, 0, 0.1 + 0.5 * grip), 0.055, 0.055, grip, slot=3),
        box((0, 0, base), (0.11, guard, 0.1), slot=2),
        box((0, 0, base + 0.5 * blade), (0.08, width, blade)),
        box((0, 0, base + blade), (0.08, 0.7 * width, 0.7 * width), turn=rotation("x", 45)),
    ]


def hammer(rng: Generator) -> Parts:
    """An upright hammer, head on top."""
    handle, head = rng.uniform(0.7, 0.95), rng.uniform(0.45, 0.6)
    thickness = rng.uniform(0.17, 0.24)
    top = handle + 0.4 * thickness
    shape = (thickness, 0.7 * head, thickness)
    return [
        cone((0, 0, 0.5 * handle), 0.065, 0.055, handle + 0.1, slot=3),
        box((0, 0.05 * head, top), shape),
        cone(
            (0, 0.4 * head, top), 0.55 * thickness, 0.55 * thickness, 0.25 * head, turn=_LIE_ALONG_Y
        ),
        cone(
            (0, -0.4 * head, top), 0.12 * thickness, 0.5 * thickness, 0.35 * head, turn=_LIE_ALONG_Y
        ),
    ]


def house(rng: Generator) -> Parts:
    """Walls, a gable roof, a door and windows."""
    width, depth = rng.uniform(0.7, 0.95), rng.uniform(0.65, 0.8)
    wall = rng.uniform(0.45, 0.6)
    side = 0.74 * width
    parts = [
        box((0, 0, wall), (1.08 * depth, side, side), turn=rotation("x", 45)),
        box((0, 0, 0.5 * wall), (depth, width, wall)),
        box((0.5 * depth, 0, 0.16), (0.06, 0.2, 0.32), slot=3),
    ]
    for sy in (-1, 1):
        window = (0.5 * depth, sy * 0.3 * width, 0.6 * wall)
        parts.append(box(window, (0.05, 0.16, 0.16), slot=2))
    if rng.random() < 0.5:
        parts.append(box((-0.1, 0.26 * width, wall + 0.35), (0.14, 0.14, 0.4), slot=3))
    return parts


def tree(rng: Generator) -> Parts:
    """A trunk under a round crown, or a fir of stacked cones."""
    trunk, radius = rng.uniform(0.3, 0.45), rng.uniform(0.07, 0.1)
    parts = [cone((0, 0, 0.5 * trunk), 1.2 * radius, radius, trunk + 0.1, slot=3)]
    if rng.random() < 0.5:
        crown = rng.uniform(0.3, 0.4)
        parts.append(ellipsoid((0, 0, trunk + 0.85 * crown), (crown, crown, crown)))
        for _ in range(3):
            dx, dy, dz = rng.uniform(-0.2, 0.2, 3)
            ball = 0.7 * crown
            parts.append(ellipsoid((dx, dy, trunk + 0.85 * crown + dz), (ball, ball, ball)))
        return parts
    base = rng.uniform(0.34, 0.42)
    for level in range(3):
        bottom = base * (1 - 0.24 * level)
        z = 0.8 * trunk + 0.17 + 0.27 * level
        parts.append(cone((0, 0, z), bottom, 0.25 * bottom if level < 2 else 0.02, 0.36))
    return parts


def car(rng: Generator) -> Parts:
    """A body, a cabin and four wheels, driving towards +x."""
    length, width = rng.uniform(1.3, 1.6), rng.uniform(0.6, 0.72)
    body, cabin = rng.uniform(0.24, 0.32), rng.uniform(0.22, 0.3)
    wheel = rng.uniform(0.15, 0.19)
    base = 0.8 * wheel
    cabin_length = rng.uniform(0.42, 0.6) * length
    shift = rng.uniform(-0.14, -0.02) * length
    parts = [
        box((0, 0, base + 0.5 * body), (length, width, body), rounding=0.06),
        box(
            (shift, 0, base + body + 0.4 * cabin),
            (cabin_length, 0.84 * width, cabin),
            rounding=0.07,
        ),
        box(
            (shift, 0, base + body + 0.42 * cabin),
            (cabin_length + 0.02, 0.7 * width, 0.5 * cabin),
            slot=2,
        ),
        box(
            (shift, 0, base + body + 0.42 * cabin),
            (0.7 * cabin_length, 0.86 * width, 0.5 * cabin),
            slot=2,
        ),
    ]
    for sx in (-1, 1):
        for sy in (-1, 1):
            center = (sx * 0.31 * length, sy * 0.46 * width, wheel)
            parts.append(cone(center, wheel, wheel, 0.14, slot=2, turn=_LIE_ALONG_Y))
    return parts


def rocket(rng: Generator) -> Parts:
    """A standing rocket: body, nose, window and three or four fins."""
    radius, height = rng.uniform(0.17, 0.23), rng.uniform(0.6, 0.8)
    nose, fin = rng.uniform(0.28, 0.4), rng.uniform(0.2, 0.27)
    fins = int(rng.integers(3, 5))
    parts = [
        cone((0, 0, 0.12 + 0.5 * height), 0.9 * radius, radius, height),
        cone((0, 0, 0.12 + height + 0.5 * nose), radius, 0.02, nose, slot=1),
        cone((0, 0, 0.08), 0.75 * radius, 0.6 * radius, 0.16, slot=2),
        ellipsoid((radius, 0, 0.12 + 0.72 * height), (0.04, 0.08, 0.08), slot=2),
    ]
    for index in range(fins):
        turn = rotation("z", 360.0 * index / fins + 45.0)
        center = tuple(turn @ (radius + 0.3 * fin, 0.0, 0.5 * fin + 0.06))
        lean = turn @ rotation("y", 18)
        parts.append(box(center, (fin, 0.08, 1.35 * fin), slot=1, turn=lean))
    return parts


def snowman(rng: Generator) -> Parts:
    """Three balls, a hat, a nose and buttons."""
    low, middle, head = rng.uniform(0.3, 0.36), rng.uniform(0.22, 0.27), rng.uniform(0.15, 0.19)
    z_middle = 1.7 * low + 0.6 * middle
    z_head = z_middle + 0.75 * middle + 0.7 * head
    parts = [
        ellipsoid((0, 0, 0.95 * low), (low, low, low)),
        ellipsoid((0, 0, z_middle), (middle, middle, middle)),
        ellipsoid((0, 0, z_head), (head, head, head)),
        cone((head + 0.06, 0, z_head), 0.05, 0.01, 0.2, slot=1, turn=_LIE_ALONG_X),
        cone((0, 0, z_head + 0.8 * head), 1.25 * head, 1.25 * head, 0.07, slot=2),
        cone((0, 0, z_head + 0.8 * head + 0.13), 0.75 * head, 0.75 * head, 0.24, slot=2),
    ]
    for level in (-0.45, 0.1):
        button = (0.95 * middle, 0.0, z_middle + level * middle)
        parts.append(ellipsoid(button, (0.045, 0.045, 0.045), slot=2))
    return parts


def sculpture(rng: Generator) -> Parts:
    """An abstract stack of rings and balls on a plinth."""
    plinth = rng.uniform(0.4, 0.54)
    ring = rng.uniform(0.26, 0.34)
    tube = rng.uniform(0.085, 0.11)
    ball = rng.uniform(0.11, 0.15)
    top = 0.22 + ring + tube
    return [
        box((0, 0, 0.12), (plinth, plinth, 0.24), slot=2),
        torus((0, 0, top), ring, tube, turn=rotation("y", 90)),
        ellipsoid((0, 0, top), (ball, ball, ball), slot=1),
    ]


def robot(rng: Generator) -> Parts:
    """A box figure: legs, body, arms, head with eyes."""
    width, body = rng.uniform(0.4, 0.52), rng.uniform(0.42, 0.54)
    leg, head = rng.uniform(0.26, 0.36), rng.uniform(0.26, 0.34)
    depth = rng.uniform(0.26, 0.32)
    top = leg + body
    parts = [
        box((0, 0, leg + 0.5 * body), (depth, width, body)),
        box((0, 0, top + 0.5 * head + 0.04), (0.85 * depth, 1.1 * head, head)),
        cone((0, 0, top + 0.03), 0.08, 0.08, 0.1, slot=2),
    ]
    for sy in (-1, 1):
        parts.append(box((0, sy * 0.28 * width, 0.5 * leg), (0.6 * depth, 0.14, leg), slot=2))
        arm = (0, sy * (0.5 * width + 0.08), leg + 0.55 * body)
        parts.append(box(arm, (0.13, 0.12, 0.85 * body), slot=1))
        eye = (0.43 * depth, sy * 0.26 * head, top + 0.6 * head)
        parts.append(ellipsoid(eye, (0.04, 0.05, 0.05), slot=2))
    return parts


def mushroom(rng: Generator) -> Parts:
    """A pale stem under a coloured cap."""
    stem, height = rng.uniform(0.12, 0.17), rng.uniform(0.36, 0.52)
    cap, rise = rng.uniform(0.38, 0.48), rng.uniform(0.26, 0.34)
    return [
        ellipsoid((0, 0, height), (cap, cap, rise)),
        box((0, 0, height - 0.56), (1.2, 1.2, 1.0), carve=True, rounding=0.001),
        cone((0, 0, 0.5 * height), 1.15 * stem, stem, height, slot=1),
    ]
