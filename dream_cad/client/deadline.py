"""How long somebody is willing to wait for work that goes on without them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dream_cad.exceptions import GenerationTimeoutError, InvalidConfigError


class Deadline:
    """The end of a wait.

    Args:
        timeout_s: seconds from now; None never comes.
        clock: seconds that only grow.

    Raises:
        InvalidConfigError: ``timeout_s`` is negative or not a number.
    """

    def __init__(
        self, timeout_s: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if timeout_s is not None and not timeout_s >= 0:
            raise InvalidConfigError(f"timeout_s is {timeout_s}; seconds from 0 are needed.")
        self._timeout_s = timeout_s
        self._clock = clock
        self._end = None if timeout_s is None else clock() + timeout_s

    def left_s(self) -> float | None:
        """Return the seconds left, negative when it is over; None without an end."""
        return None if self._end is None else self._end - self._clock()

    def at_most(self, seconds: float) -> float:
        """Return so many seconds, or what is left if that is less."""
        left_s = self.left_s()
        return seconds if left_s is None else max(0.0, min(seconds, left_s))

    def check(self, what: str, hint: str, **details: Any) -> None:
        """Check that there is time left.

        Args:
            what: is waited for, for example "Job 17".
            hint: what to do when it is over.
            **details: of the error.

        Raises:
            GenerationTimeoutError: there is none.
        """
        left_s = self.left_s()
        if left_s is not None and left_s <= 0:
            raise GenerationTimeoutError(
                f"{what} is not done after {self._timeout_s:g} s; it goes on.",
                hint=hint,
                details=details,
            )
