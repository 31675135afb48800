"""Physically based shading of the procedural objects: pictures that show roughness and metallic.

The training pictures of the other stages have one highlight of one width, from which neither can
be told. Here an environment of a ground, a sky and a few soft boxes is mirrored, the sharper the
smoother the surface, in the colour of the surface where it is metal. Lights are spherical
gaussians, whose integrals have closed forms (Wang et al. 2009, "All-frequency rendering"); what a
surface reflects in all follows Lazarov's fit of the split sum (2013, "Getting more physical").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from jobs.nano.render import SeenSurface

Float = NDArray[np.float32]

_COSINE_SHARPNESS, _COSINE_SCALE = 2.133, 1.17  # a gaussian much like the cosine's lobe
_DIELECTRIC = 0.04
_LEAST_ALPHA = 0.02
_LEAST_FACING = 0.05
_BRIGHTNESS = 0.65
"""Mean light that falls on a surface: colours are then about the other stages'."""


@dataclass(frozen=True)
class Material:
    """glTF's two factors: roughness 0 is a mirror, 1 is matt; metallic is 0 or 1."""

    roughness: float
    metallic: float


@dataclass(frozen=True)
class Environment:
    """Light from all around, in linear RGB.

    Attributes:
        sky: (3,) radiance above the horizon; ground: (3,) below it.
        axes: (L, 3) units towards the soft boxes; sharpness: (L,);
        radiance: (L, 3) at their middle.
    """

    sky: Float
    ground: Float
    axes: Float
    sharpness: Float
    radiance: Float

    def gathered(self, axes: Float, sharpness: Float) -> Float:
        """Return the (R, 3) mean radiance under normalised gaussian lobes (R, 3), (R,).

        The horizon is as soft as the lobe is wide.
        """
        lobe = sharpness[:, None]
        both = lobe * axes
        summed = np.linalg.norm(
            both[:, None] + self.sharpness[:, None] * self.axes, axis=-1
        )  # (R, L)
        exponent = summed - lobe - self.sharpness
        overlap = np.exp(exponent) * -np.expm1(-2.0 * summed) / summed
        scale = lobe / -np.expm1(-2.0 * lobe)
        height = 0.5 + 0.5 * np.tanh(axes[:, 2:] * np.sqrt(lobe))
        backdrop = self.ground + (self.sky - self.ground) * height
        mean: Float = (backdrop + (overlap * scale) @ self.radiance).astype(np.float32)
        return mean


def draw_material(rng: Generator) -> Material:
    """Draw a roughness, and metal in two of five cases."""
    return Material(float(rng.uniform(0.05, 0.95)), float(rng.random() < 0.4))


def draw_environment(rng: Generator, towards_camera: Float) -> Environment:
    """Draw a backdrop and four to eight soft boxes, the first in front, above the camera's side.

    Args:
        rng: source of all of it.
        towards_camera: (3,) unit from the object to the camera.
    """
    count = int(rng.integers(4, 9))
    axes = rng.normal(size=(count, 3))
    axes[:, 2] = np.abs(axes[:, 2]) + 0.1
    axes[0] = towards_camera + [0.0, 0.0, rng.uniform(0.3, 1.0)] + 0.5 * rng.normal(size=3)
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    sharpness = np.exp(rng.uniform(np.log(8.0), np.log(250.0), count))
    flux = rng.uniform(0.1, 0.4, count) * (1.0 + (np.arange(count) == 0))
    tint = rng.uniform(0.92, 1.08, (count, 3))
    radiance = (flux * sharpness / 2.0)[:, None] * tint
    sky = rng.uniform(0.35, 0.8) * rng.uniform(0.92, 1.08, 3)
    ground = rng.uniform(0.08, 0.35) * rng.uniform(0.92, 1.08, 3)
    level = float(np.mean(0.5 * (sky + ground))) + 0.25 * float(flux.sum())
    gain = _BRIGHTNESS * rng.uniform(0.85, 1.15) / level
    arrays = (gain * sky, gain * ground, axes, sharpness, gain * radiance)
    return Environment(*(array.astype(np.float32) for array in arrays))


def shade(seen: SeenSurface, material: Material, environment: Environment) -> NDArray[np.uint8]:
    """Return the picture (S, S, 4) uint8 of a surface: colour on BACKGROUND, coverage as alpha."""
    normals, views = seen.normals, -seen.directions
    base = to_linear(seen.colors)
    facing = np.clip(np.einsum("rc,rc->r", normals, views), _LEAST_FACING, 1.0)
    mirrored = 2.0 * facing[:, None] * normals - views
    mirrored /= np.linalg.norm(mirrored, axis=1, keepdims=True)
    alpha = max(material.roughness**2, _LEAST_ALPHA)
    reflected = environment.gathered(mirrored, 0.5 / (alpha**2 * facing))
    received = environment.gathered(normals, np.full(len(normals), _COSINE_SHARPNESS, np.float32))
    received *= _COSINE_SCALE * -np.expm1(-2.0 * _COSINE_SHARPNESS) * 2.0 / _COSINE_SHARPNESS
    straight = _DIELECTRIC + (base - _DIELECTRIC) * material.metallic
    scale, bias = _reflectance(material.roughness, facing)
    light = base * (1.0 - material.metallic) * received
    light += (straight * scale[:, None] + bias[:, None]) * reflected
    return seen.picture(to_srgb(light))


def to_linear(srgb: Float) -> Float:
    """Decode sRGB in [0, 1]."""
    dark = srgb / 12.92
    return np.where(srgb <= 0.04045, dark, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(linear: Float) -> Float:
    """Encode linear light in sRGB, clipped to [0, 1]."""
    light = np.clip(linear, 0.0, 1.0)
    bright = 1.055 * light ** (1.0 / 2.4) - 0.055
    return np.where(light <= 0.0031308, 12.92 * light, bright).astype(np.float32)


def _reflectance(roughness: float, facing: Float) -> tuple[Float, Float]:
    """Return the factor of and the addend to the straight reflectance, (R,) each: Lazarov's fit."""
    r = roughness * np.array([-1.0, -0.0275, -0.572, 0.022]) + [1.0, 0.0425, 1.04, -0.04]
    edge = np.minimum(r[0] ** 2, 2.0 ** (-9.28 * facing)) * r[0] + r[1]
    return -1.04 * edge + r[2], 1.04 * edge + r[3]
