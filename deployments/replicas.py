"""What the replicas of a model say of themselves."""

from __future__ import annotations

from typing import Any

from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from deployments.failures import CLUSTER_ERRORS
from deployments.messages import ModelInfo

_ANSWER_S = 5.0


class Replicas:
    """The replicas of a model's deployment, and of the text stage that it shares with others.

    Args:
        model: handle of the model's deployment.
        text: handle of the text stage, for models that need a picture made first.
        router_id: told to the replicas, so that they drop an earlier router's work.
    """

    def __init__(
        self, model: DeploymentHandle[Any], text: DeploymentHandle[Any] | None, router_id: str
    ) -> None:
        self._model = model
        self._text = text
        self._router_id = router_id

    async def adopt(self) -> list[ModelInfo] | None:
        """Make the replicas work for this router alone; returns as ``ask``."""
        infos = await _ask(self._model, "adopt", self._router_id)
        if self._text is not None and await _ask(self._text, "adopt", self._router_id) is None:
            return None
        return infos

    async def ask(self) -> list[ModelInfo] | None:
        """Return what each replica says; nothing where there is none, None without an answer."""
        return await _ask(self._model, "state")


async def _ask(handle: DeploymentHandle[Any], method: str, *args: Any) -> list[ModelInfo] | None:
    try:
        asked = handle.broadcast(method, *args)
        infos: list[ModelInfo] = await asked.results_async(timeout_s=_ANSWER_S)
    except DeploymentUnavailableError:
        return []
    except (*CLUSTER_ERRORS, TimeoutError):
        return None
    return infos
