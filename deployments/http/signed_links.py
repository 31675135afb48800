"""Links to results that need no key: signed for the job, the file and a time.

Clients of wire format P2 load ``model_urls`` without their key. The signature is made with a
secret of the key that owns the job (``GatewayDesk.link_secret``), so that a revoked key's links
end with it.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from urllib.parse import urlencode

_HOUR_S = 3_600
_LIFE_S = 24 * _HOUR_S


def sign(secret: str, job_id: str, name: str, now: float | None = None) -> str:
    """Return the query of a link that holds for a day; the same within an hour, for caches."""
    hour = int(time.time() if now is None else now) // _HOUR_S * _HOUR_S
    expires = hour + _HOUR_S + _LIFE_S
    return urlencode({"expires": expires, "signature": _signature(secret, job_id, name, expires)})


def is_signed(
    secret: str, job_id: str, name: str, expires: int, signature: str, now: float | None = None
) -> bool:
    """Return whether a signature is ours and its time has not passed."""
    if expires < (time.time() if now is None else now):
        return False
    wanted = _signature(secret, job_id, name, expires)
    return hmac.compare_digest(wanted.encode(), signature.encode("utf-8", "replace"))


def _signature(secret: str, job_id: str, name: str, expires: int) -> str:
    text = f"dream_cad result link\n{job_id}\n{name}\n{expires}"
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
