"""The baseline: HTTP -> handle -> a deployment that does nothing, and an echo."""

# No ``from __future__ import annotations``: FastAPI looks the types of pickled routes up.

from typing import Any

from fastapi import FastAPI, Request, Response
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

RESULT = b"x" * 1000
_MANY = 1000
_api = FastAPI()


@serve.deployment(max_ongoing_requests=_MANY, ray_actor_options={"num_cpus": 0.1})
class BareModel:
    """Does nothing."""

    async def generate(self, prompt: str) -> bytes:
        """Return bytes of about the size of a small mesh."""
        return RESULT


@serve.deployment(max_ongoing_requests=_MANY, ray_actor_options={"num_cpus": 0.1})
@serve.ingress(_api)
class BareGateway:
    """HTTP -> handle, with nothing in between."""

    def __init__(self, model: DeploymentHandle[Any]) -> None:
        self._model = model

    @_api.post("/run")
    async def run(self, request: Request) -> Response:
        """Pass the prompt to the model."""
        body = await request.json()
        return Response(await self._model.generate.remote(body["prompt"]))

    @_api.post("/echo")
    async def echo(self, request: Request) -> Response:
        """Answer without the model."""
        await request.json()
        return Response(RESULT)


def bare_app() -> Application:
    """Return the application."""
    return BareGateway.bind(BareModel.bind())  # type: ignore[attr-defined, no-any-return]
