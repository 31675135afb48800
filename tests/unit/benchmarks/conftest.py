from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own, at its first import
    import ray.serve
    import ray.serve.handle
    import ray.serve.schema  # noqa: F401
