"""Whatever fits, or nearly fits, the OpenAPI document: no 5xx but the documented, no surprise."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from dream_cad.exceptions import ModelUnavailableError
from tests.cluster.conftest import Server

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # schemathesis' own, at its first import
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi.checks import status_code_conformance

EXAMPLES = 4
_WAITS = {("GET", "/v1/jobs/{job_id}/events"), ("POST", "/v1/generate"), ("POST", "/generate")}
"""Operations that wait for a job by design; the other tests cover them."""
_OFF = {("POST", "/v1/admin/drain"), ("POST", "/v1/admin/pause")}
"""Operations that would stop the server that the other tests use."""


@pytest.fixture(scope="module")
def operations(server: Server) -> list[Any]:
    document = server.client.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=str(server.client.base_url))
    found = [result.ok() for result in schema.get_all_operations()]
    return [
        operation
        for operation in found
        if (operation.method.upper(), operation.path) not in _WAITS | _OFF
    ]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_operation(server: Server, operations: list[Any], mode: GenerationMode) -> None:
    assert len(operations) > 25
    statuses: dict[str, set[int]] = {}
    for operation in operations:
        with suppress(Unsatisfiable):  # what takes any text cannot be got wrong
            statuses[operation.label] = _try_operation(operation, mode)
    answered = set().union(*statuses.values())
    assert answered & {200, 202} or mode is GenerationMode.NEGATIVE
    assert answered & {404, 422}
    _cancel_all(server)


def _try_operation(operation: Any, mode: GenerationMode) -> set[int]:
    statuses: set[int] = set()

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def attempt(case: Any) -> None:
        response = case.call(timeout=60)
        statuses.add(response.status_code)
        assert response.status_code < 500 or _names_a_model_not_here(response), response.text
        case.validate_response(response, checks=[status_code_conformance])

    attempt()
    return statuses


def _names_a_model_not_here(response: Any) -> bool:
    """The one answer from 500 on that a request can bring about: it asks for another model."""
    is_problem = response.headers["content-type"][0].startswith("application/problem+json")
    return is_problem and response.json()["type"] == ModelUnavailableError.code


def _cancel_all(server: Server) -> None:
    for status in ("pending", "running"):
        for job in server.client.get("/v1/jobs", params={"status": status}).json()["jobs"]:
            server.client.delete(f"/v1/jobs/{job['id']}")
