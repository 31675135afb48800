"""Acceptance: what is tried until a result holds what its job requires.

A result that fails a gate (see deployments.judging) is repaired where that can help, else made
again from another seed, else by the next of the job's models, within ``max_tries``. This half is
the router's: it imports nothing that knows meshes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SEED_STEP = 1_000_003
_SEEDS = 2**32


@dataclass(frozen=True)
class Try:
    """One way to make the result: which model, from which seed (None: the model takes none)."""

    model: str
    seed: int | None


def plan_tries(policy: Mapping[str, Any], model: str, seed: int | None) -> list[Try]:
    """Return what to try, in order.

    Without gates a model is asked once: another seed would be judged by nobody. With gates,
    ``max_tries`` (by default one for each model) is shared out among the models, the first ones
    getting what is left over. For ``pick: first`` a model tries all its seeds before the next
    model's turn; for ``pick: best`` the models take turns, so that they compete on equal terms.

    Args:
        policy: of the job, see ``GenerationJob.policy``.
        model: the job's model, where the policy names none.
        seed: of the job's options; None for models without one, whose result never differs.
    """
    models = list(dict.fromkeys(policy.get("models") or [model]))
    most = int(policy.get("max_tries") or len(models))
    if not policy.get("require"):
        most = min(most, len(models))
    share, left_over = divmod(most, len(models))
    tries = [
        (turn, Try(name, _reseeded(seed, turn)))
        for index, name in enumerate(models)
        for turn in range(share + (index < left_over))
    ]
    if policy.get("pick") == "best":
        tries.sort(key=lambda entry: entry[0])
    return list(dict.fromkeys(one for _, one in tries))


def _reseeded(seed: int | None, turn: int) -> int | None:
    return None if seed is None else (seed + turn * _SEED_STEP) % _SEEDS
