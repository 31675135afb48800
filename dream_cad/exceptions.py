"""The tree of errors.

Every error says what happened, what was expected and what to do. The class carries a stable
``code`` (the ``type`` of the HTTP problem document), an ``http_status`` and whether trying the
same thing again can help. All of them survive pickling, so they cross process borders intact.
"""

from __future__ import annotations

from typing import Any, ClassVar


class DreamCadError(Exception):
    """Base of all errors raised on purpose by dream_cad.

    Args:
        message: what happened and what was expected, in one or two sentences.
        hint: what the reader can do about it.
        details: machine-readable facts (JSON types only), for example ``{"allowed": [...]}``.
    """

    code: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, hint: str | None = None, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = dict(details or {})

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.details)


def _rebuild(
    cls: type[DreamCadError], message: str, hint: str | None, details: dict[str, Any]
) -> DreamCadError:
    return cls(message, hint=hint, details=details)


class ModelNotFoundError(DreamCadError):
    """No model of that name is registered."""

    code = "model-not-found"
    title = "Model not found"
    http_status = 404


class ModelUnavailableError(DreamCadError):
    """The model is known but cannot run here: not in this version, or no checkpoint at hand."""

    code = "model-unavailable"
    title = "Model unavailable"
    http_status = 503


class InsufficientVRAMError(DreamCadError):
    """The model needs more GPU memory than there is."""

    code = "insufficient-vram"
    title = "Not enough GPU memory"
    http_status = 503


class InvalidConfigError(DreamCadError):
    """An option, prompt or setting is outside what is accepted."""

    code = "invalid-config"
    title = "Invalid configuration"
    http_status = 422


class ShapeError(InvalidConfigError):
    """An array has another shape or dtype than the function's contract."""

    code = "invalid-shape"
    title = "Invalid array shape"


class FileFormatError(DreamCadError):
    """A file is of a kind that is not supported, or is damaged."""

    code = "unsupported-file-format"
    title = "Unsupported file format"
    http_status = 415


class PayloadTooLargeError(DreamCadError):
    """An upload or image exceeds the limits, found before memory was spent on it."""

    code = "payload-too-large"
    title = "Payload too large"
    http_status = 413


class GenerationError(DreamCadError):
    """The model ran and failed, or gave nothing usable."""

    code = "generation-failed"
    title = "Generation failed"


class GenerationCancelledError(DreamCadError):
    """The caller asked for the generation to stop; raised by the progress callback."""

    code = "generation-cancelled"
    title = "Generation cancelled"
    http_status = 409


class GenerationTimeoutError(GenerationError):
    """The generation ran past its time limit."""

    code = "generation-timeout"
    title = "Generation timed out"
    http_status = 504


class AcceptanceError(GenerationError):
    """No result passed the gates that the request set."""

    code = "not-accepted"
    title = "No result was accepted"
    http_status = 422


class CheckpointError(DreamCadError):
    """A checkpoint is missing, damaged, or does not fit the network."""

    code = "checkpoint-invalid"
    title = "Checkpoint missing or invalid"
    http_status = 503


class DownloadError(DreamCadError):
    """Files could not be fetched."""

    code = "download-failed"
    title = "Download failed"
    http_status = 502
    retryable = True


class StorageError(DreamCadError):
    """An artifact could not be written or read: disk full, missing, no permission."""

    code = "storage-failed"
    title = "Storage failed"
    http_status = 507
    retryable = True


class JobNotFoundError(DreamCadError):
    """No job has that id."""

    code = "job-not-found"
    title = "Job not found"
    http_status = 404


class JobStateError(DreamCadError):
    """The job is in a state that does not allow what was asked."""

    code = "job-state-conflict"
    title = "Job state conflict"
    http_status = 409


class ResultExpiredError(JobStateError):
    """The job's result was kept for its time and is gone."""

    code = "result-expired"
    title = "Result expired"
    http_status = 410


class ResultFileNotFoundError(DreamCadError):
    """A result has no file of that name."""

    code = "result-file-not-found"
    title = "Result file not found"
    http_status = 404


class LeaseLostError(JobStateError):
    """A worker reports on a job whose lease is no longer its own; its result is refused."""

    code = "lease-lost"
    title = "Lease lost"


class IdempotencyConflictError(DreamCadError):
    """The same idempotency key came with another request body."""

    code = "idempotency-conflict"
    title = "Idempotency key reused"
    http_status = 409


class QueueFullError(DreamCadError):
    """The queue holds as many jobs as it may; ``details["retry_after_s"]`` says when to return."""

    code = "queue-full"
    title = "Queue full"
    http_status = 429
    retryable = True


class RateLimitedError(DreamCadError):
    """Too many requests; ``details["retry_after_s"]`` says when the next is welcome."""

    code = "rate-limited"
    title = "Too many requests"
    http_status = 429
    retryable = True


class AuthenticationError(DreamCadError):
    """The request has no valid API key, and needs one."""

    code = "unauthenticated"
    title = "Authentication needed"
    http_status = 401


class PermissionDeniedError(DreamCadError):
    """Who asks may not do this."""

    code = "forbidden"
    title = "Not allowed"
    http_status = 403


class ServiceUnavailableError(DreamCadError):
    """A part of the cluster is not reachable at the moment."""

    code = "service-unavailable"
    title = "Service unavailable"
    http_status = 503
    retryable = True
