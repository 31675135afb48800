"""Objects of the layers beside the queue, named by text and imported when first used.

The queue and the models know nothing of each other (import-linter checks it), yet a BatchProcessor
generates with models and a job's result is a GenerationResult. See docs/decisions/010.
"""

from __future__ import annotations

import importlib
from functools import reduce
from typing import Any

from dream_cad.exceptions import InvalidConfigError

CREATE_MODEL = "dream_cad.models.factory:ModelFactory.create_model"
GENERATION_RESULT = "dream_cad.models.base:GenerationResult"
MODEL_REGISTRY = "dream_cad.models.registry:ModelRegistry"
AVAILABILITY = "dream_cad.models.availability:get_availability"


def resolve(entry: str) -> Any:
    """Import and return what ``module:name`` or ``module:name.attribute`` names.

    Raises:
        InvalidConfigError: there is no such module or name.
    """
    module, _, path = entry.partition(":")
    try:
        return reduce(getattr, path.split("."), importlib.import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidConfigError(
            f"{entry!r} cannot be imported: {error}.", hint="Write it as 'module:name'."
        ) from error
