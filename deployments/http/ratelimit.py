"""Request rates: one token bucket for each API key."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from dream_cad.exceptions import RateLimitedError

_SECONDS_A_MINUTE = 60.0
_MAX_BUCKETS = 10_000


@dataclass
class _Bucket:
    tokens: float
    filled_at: float


class RateLimiter:
    """Counts requests in this process; each gateway replica has its own.

    A bucket holds a minute's worth, so that a short burst passes.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def spend(self, who: str, rate_per_minute: int | None) -> None:
        """Count one request.

        Args:
            who: the key's id.
            rate_per_minute: requests that it may make; None for any number.

        Raises:
            RateLimitedError: too many; says when the next is welcome.
        """
        if rate_per_minute is None:
            return
        now = self._clock()
        bucket = self._buckets.pop(who, None) or _Bucket(float(rate_per_minute), now)
        self._buckets[who] = bucket
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        rate_per_second = rate_per_minute / _SECONDS_A_MINUTE
        grown = bucket.tokens + (now - bucket.filled_at) * rate_per_second
        bucket.tokens, bucket.filled_at = min(grown, float(rate_per_minute)), now
        if bucket.tokens < 1.0:
            wait_s = (1.0 - bucket.tokens) / rate_per_second
            raise RateLimitedError(
                f"More than {rate_per_minute} requests a minute.",
                hint=f"Try again in {wait_s:.1f} s.",
                details={"retry_after_s": wait_s, "limit_per_minute": rate_per_minute},
            )
        bucket.tokens -= 1.0
