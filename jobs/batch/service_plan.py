"""What a running service offers, in the terms in which rows are checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.options import finisher_options, text_options
from deployments.plan import ModelPlan
from dream_cad.exceptions import ModelNotFoundError
from dream_cad.models.registry import resolve_implementation

_TAKES_JOBS = ("ready", "asleep", "loading")


@dataclass
class ServicePlanner:
    """Plans rows for a service: its models, and the rules of their options as this code has them.

    Attributes:
        answer: of GET /v1/models.
    """

    answer: Mapping[str, Any]
    _plans: dict[str, ModelPlan] = field(default_factory=dict)

    @property
    def default_model(self) -> str:
        """Model of rows that name none."""
        return str(self.answer["default_model"])

    def plan(self, name: str) -> ModelPlan:
        """Return what the service says of a model.

        Raises:
            ModelNotFoundError: the service has no such model, or this code does not know it.
        """
        if name not in self._plans:
            self._plans[name] = self._plan(name)
        return self._plans[name]

    def _plan(self, name: str) -> ModelPlan:
        found = [model for model in self.answer["models"] if model["name"] == name]
        if not found:
            names = ", ".join(model["name"] for model in self.answer["models"])
            raise ModelNotFoundError(
                f"The service has no model {name[:80]!r}.", hint=f"It has {names}."
            )
        state, reason = found[0]["state"], str(found[0]["reason"])
        if state not in _TAKES_JOBS:
            return ModelPlan(name, is_deployed=False, reason=reason)
        model_class = resolve_implementation(name)
        rules = model_class.options_model()
        # The service knows its checkpoint: some variants read text themselves.
        needs_picture = bool(found[0].get("draws_picture_first", model_class.text_through_image))
        return ModelPlan(
            name,
            is_deployed=True,
            reason=reason,
            needs_picture=needs_picture,
            finish_options=finisher_options(rules),
            text_options=text_options(rules) if needs_picture else {},
        )
