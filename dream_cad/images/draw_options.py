"""Check the options of a text-to-image call; each function raises InvalidConfigError."""

from __future__ import annotations

import math
import secrets

from dream_cad.exceptions import InvalidConfigError
from dream_cad.images.pipeline_folder import PipelineDefaults
from dream_cad.images.prompts import check_prompt

MAX_STEPS = 200
MAX_GUIDANCE = 50.0
MAX_SEED = 2**63 - 1


def check_steps(steps: int | None, defaults: PipelineDefaults) -> int:
    """Return the denoising steps: those asked for if in 1..MAX_STEPS, else the default."""
    if steps is None:
        return defaults.num_inference_steps
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MAX_STEPS:
        raise InvalidConfigError(
            f"num_inference_steps is {steps!r}; a whole number from 1 to {MAX_STEPS} is needed."
        )
    return steps


def check_guidance(scale: float | None, defaults: PipelineDefaults) -> float:
    """Return the guidance scale: that asked for if in 0..MAX_GUIDANCE, else the default."""
    if scale is None:
        return defaults.guidance_scale
    is_number = isinstance(scale, int | float) and not isinstance(scale, bool)
    if not is_number or not math.isfinite(scale) or not 0 <= scale <= MAX_GUIDANCE:
        raise InvalidConfigError(
            f"guidance_scale is {scale!r}; a number from 0 to {MAX_GUIDANCE:g} is needed."
        )
    return float(scale)


def check_seed(seed: int | None) -> int:
    """Return the seed, or one drawn by chance."""
    if seed is None:
        return secrets.randbelow(2**32)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise InvalidConfigError(f"seed is {seed!r}; a whole number from 0 to 2^63 - 1 is needed.")
    return seed


def check_negative_prompt(negative_prompt: str | None, guidance_scale: float) -> str | None:
    """Return the checked negative prompt, None if there is none; refuse one without effect."""
    if negative_prompt is None or (isinstance(negative_prompt, str) and not negative_prompt):
        return None
    if guidance_scale <= 1:
        raise InvalidConfigError(
            f"A negative prompt has no effect at guidance_scale {guidance_scale:g}.",
            hint="Raise guidance_scale above 1, or leave the negative prompt out.",
        )
    return check_prompt(negative_prompt)
