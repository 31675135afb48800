"""When a request is sent again: broken connections, 429 and 503, for a limited time."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, TypedDict

import httpx
import tenacity

from dream_cad.exceptions import DreamCadError, ServiceUnavailableError

logger = logging.getLogger(__name__)

_BUSY = (429, 503)
_WILL_NOT_PASS = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)


class Policy(TypedDict):
    """Arguments of tenacity's ``Retrying`` and ``AsyncRetrying``."""

    retry: tenacity.retry_if_exception
    wait: Any
    stop: Any
    before_sleep: Any
    reraise: bool


@dataclass(frozen=True)
class Patience:
    """How long to go on.

    Attributes:
        total_s: seconds from the first try; no try begins later. 0 tries once.
        first_s: pause before the second try; doubled for each after it, and spread at random.
        longest_s: pause at most, where the server names none.
    """

    total_s: float
    first_s: float = 0.25
    longest_s: float = 10.0

    def policy(self) -> Policy:
        """Return the rules of a request; what makes something carries a key, so all may repeat."""
        return Policy(
            retry=tenacity.retry_if_exception(_may_help),
            wait=self._pause_s,
            stop=self._is_over,
            before_sleep=_tell,
            reraise=True,
        )

    def _pause_s(self, state: tenacity.RetryCallState) -> float:
        asked_s = _asked_s(_error_of(state))
        if asked_s is not None:
            return asked_s
        grow = tenacity.wait_exponential(multiplier=self.first_s, max=self.longest_s)
        return grow(state) + tenacity.wait_random(0.0, self.first_s)(state)

    def _is_over(self, state: tenacity.RetryCallState) -> bool:
        spent_s = max(state.seconds_since_start or 0.0, state.idle_for)
        return spent_s + state.upcoming_sleep > self.total_s


def unreachable(server: str, error: httpx.RequestError) -> ServiceUnavailableError:
    """Return the error of a connection that could not be made, or broke; raise it from ``error``.

    Args:
        server: its base URL.
        error: what the connection said.
    """
    return ServiceUnavailableError(
        f"The server {server} cannot be reached: {error or type(error).__name__}.",
        hint="Start one with 'serve run serve_config.yaml', or name another: DREAM_CAD_SERVER.",
    )


def is_passing(error: DreamCadError) -> bool:
    """Tell whether an error may be gone in a while: no connection, 429, or 503 of a busy server."""
    if isinstance(error.__cause__, httpx.TransportError):
        return not isinstance(error.__cause__, _WILL_NOT_PASS)
    return error.retryable and error.details.get("status") in _BUSY


def _may_help(error: BaseException) -> bool:
    return isinstance(error, DreamCadError) and is_passing(error)


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None


def _asked_s(error: BaseException | None) -> float | None:
    return error.details.get("retry_after_s") if isinstance(error, DreamCadError) else None


def _tell(state: tenacity.RetryCallState) -> None:
    error = _error_of(state)
    text = error.message if isinstance(error, DreamCadError) else error
    logger.warning("%s Trying again in %.1f s.", text, state.upcoming_sleep)
