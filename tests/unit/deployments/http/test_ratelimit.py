from __future__ import annotations

import pytest

from deployments.http.ratelimit import RateLimiter
from dream_cad.exceptions import RateLimitedError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_minutes_worth_passes_and_then_one_at_a_time() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    for _ in range(6):
        limiter.spend("a", 6)
    with pytest.raises(RateLimitedError) as caught:
        limiter.spend("a", 6)
    assert caught.value.details["retry_after_s"] == pytest.approx(10.0)
    limiter.spend("b", 6)  # another key has its own
    clock.now += 10.0
    limiter.spend("a", 6)
    with pytest.raises(RateLimitedError):
        limiter.spend("a", 6)


def test_a_long_pause_saves_up_no_more_than_a_minute() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    limiter.spend("a", 2)
    clock.now += 3600
    limiter.spend("a", 2)
    limiter.spend("a", 2)
    with pytest.raises(RateLimitedError):
        limiter.spend("a", 2)


def test_no_rate_is_no_limit() -> None:
    limiter = RateLimiter(Clock())
    for _ in range(1000):
        limiter.spend("a", None)
