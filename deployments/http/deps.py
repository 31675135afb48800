"""What routes ask for in their signatures: the services, and who asks with which scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, cast

from fastapi import Depends, Header, Query, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from deployments.http.auth import Principal, Scope
from deployments.http.documents import ProblemDocument
from deployments.http.services import Services

PROBLEM = "application/problem+json"
_REASONS = {
    400: "The request is malformed.",
    401: "An API key is needed, or is not valid.",
    403: "The key lacks a scope; or there are no keys yet, and the client is on another machine.",
    404: "There is nothing of that id, or it belongs to another key.",
    409: "What is asked does not fit the state of the job; or the idempotency key was used.",
    410: "The result was kept for its time and is gone.",
    413: "The body, or the picture in it, is too large.",
    415: "Another content type is needed, or the picture is of an unsupported kind.",
    422: "A field, prompt or option is not acceptable; the document names it.",
    429: "The queue is full, or the key's rate or quota is used up; see Retry-After.",
    500: "The generation failed, or the server did.",
    502: "A picture's URL could not be fetched.",
    503: "A model or a part of the cluster is not available; see Retry-After.",
    504: "The generation ran past its time limit.",
    507: "Storage failed, for example a full disk.",
}
ALWAYS = (400, 401, 403, 422, 429, 500, 503, 507)
"""What any route may answer beside its own statuses."""

_bearer = HTTPBearer(auto_error=False, description="API key as a bearer token.")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="API key.")

Name = Annotated[str | None, Query(max_length=128, pattern=r"^[A-Za-z0-9._:/-]*$")]
"""A filter: what model names, batch ids and tags are made of."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        description="A repeated request with the same key gives the first one's job.",
    ),
]


def problems(*statuses: int) -> dict[int | str, dict[str, object]]:
    """Return OpenAPI's description of error statuses."""
    schema = ProblemDocument.model_json_schema()
    return {
        status: {
            "description": _REASONS[status],
            "content": {PROBLEM: {"schema": schema}},
        }
        for status in statuses
    }


def services_of(request: Request) -> Services:
    """Return the services of the application that answers."""
    return cast("Services", request.app.state.services)


async def _give_services(request: Request) -> Services:
    # Awaited: FastAPI sends what is not through a thread, which takes longer than the call.
    return services_of(request)


def _asker(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    async def ask(request: Request, bearer: _Bearer, header: _Header) -> Principal:
        who = await services_of(request).auth.identify(request)
        request.state.principal_id = who.id
        who.require(scope)
        return who

    return ask


_Bearer = Annotated[object, Security(_bearer)]
_Header = Annotated[object, Security(_header)]

App = Annotated[Services, Depends(_give_services)]
Reader = Annotated[Principal, Depends(_asker("read"))]
Submitter = Annotated[Principal, Depends(_asker("submit"))]
Admin = Annotated[Principal, Depends(_asker("admin"))]


async def _ask_p1(request: Request) -> Principal:
    who = await services_of(request).auth.identify(request, allow_query=True)
    request.state.principal_id = who.id
    return who


AskerP1 = Annotated[Principal, Depends(_ask_p1)]
