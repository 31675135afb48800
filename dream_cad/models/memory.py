"""Running out of GPU memory, told in our own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dream_cad.exceptions import InsufficientVRAMError


@contextmanager
def cuda_memory_errors(doing: str) -> Iterator[None]:
    """Turn torch's out-of-memory error into ours.

    Raises:
        InsufficientVRAMError: the GPU ran out of memory inside the block.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise InsufficientVRAMError(
            f"The GPU ran out of memory while {doing}.",
            hint="Lower the resolution, use fp16, or stop other work on the GPU.",
        ) from error
