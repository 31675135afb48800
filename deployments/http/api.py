"""The HTTP API put together."""

from __future__ import annotations

from fastapi import FastAPI

import dream_cad
from deployments.http.deps import ALWAYS, problems
from deployments.http.errors import install_error_handlers
from deployments.http.limits import BodyLimitMiddleware
from deployments.http.request_id import RequestIdMiddleware
from deployments.http.routes import admin, batches, cluster, jobs, p1, p2, results
from deployments.http.services import Services
from deployments.http.web import add_web_interface

_DESCRIPTION = """Text prompts and pictures become 3D meshes.

Errors are application/problem+json with a stable `type`. `X-Request-Id` is taken from the client
or made, answered, and written in the logs. Metrics are Ray's (Prometheus, on its own port)."""


def build_api(services: Services) -> FastAPI:
    """Return the application that answers with these services."""
    api = FastAPI(title="dream_cad", version=dream_cad.__version__, description=_DESCRIPTION)
    api.state.services = services
    install_error_handlers(api)
    api.add_middleware(BodyLimitMiddleware, max_bytes=services.args.limits.max_body_bytes)
    api.add_middleware(RequestIdMiddleware)
    for module in (jobs, results, batches, cluster, admin):
        api.include_router(module.router, responses=problems(*ALWAYS))
    api.include_router(p1.router)
    api.include_router(p2.router)
    add_web_interface(api, services)
    return api
