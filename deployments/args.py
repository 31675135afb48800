"""What an operator may say in serve_config.yaml under ``args``; wrong values stop the start."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from deployments.http.settings import EdgeArgs, FetchArgs, WebhookArgs
from dream_cad.settings import get_settings

_MEBIBYTE = 2**20


class _Args(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AutoscalingArgs(_Args):
    """How many replicas a model has, by the work that waits for it."""

    min_replicas: int = Field(0, ge=0, le=1024, description="0: unloaded while nobody needs it.")
    max_replicas: int = Field(ge=1, le=1024)
    drain_s: float = Field(
        60.0, gt=0, description="Replicas are added until waiting work takes no longer than this."
    )
    idle_s: float = Field(
        60.0, gt=0, description="A replica that is not needed for so long is stopped."
    )

    @model_validator(mode="after")
    def _in_order(self) -> AutoscalingArgs:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas must not exceed max_replicas")
        return self


class ModelArgs(_Args):
    """One model to serve.

    ``num_gpus`` and ``num_cpus`` are derived (GPU share from memory) unless given here.
    ``num_replicas`` is for a fixed number, ``autoscaling`` for one that follows the queue.
    """

    name: str = Field(min_length=1, max_length=64)
    checkpoint: str | None = Field(
        None, description="auto, published, nano or a folder; DREAM_CAD_CHECKPOINT when not given."
    )
    num_replicas: int = Field(1, ge=1, le=1024)
    autoscaling: AutoscalingArgs | None = None
    options: dict[str, Any] = Field(
        default_factory=dict, description="Constructor options, for example {precision: fp16}."
    )
    num_gpus: float | None = Field(None, ge=0, le=64)
    num_cpus: float | None = Field(None, ge=0, le=256)
    accelerator: str | None = Field(
        None, description="Kind of GPU by Ray's label, for example A100-80G; any that holds it."
    )

    @model_validator(mode="after")
    def _one_way_to_count(self) -> ModelArgs:
        if self.autoscaling is not None and "num_replicas" in self.model_fields_set:
            raise ValueError("give num_replicas or autoscaling, not both")
        return self


class TextToImageArgs(_Args):
    """The stage that turns prompts into pictures for the models that take pictures."""

    source: str | None = Field(None, description="diffusers repository or folder; None: automatic.")
    num_replicas: int = Field(1, ge=1, le=1024)
    min_vram_gb: float = Field(8.0, gt=0, description="GPU memory of a full-size pipeline.")
    num_gpus: float | None = Field(None, ge=0, le=64)
    num_cpus: float | None = Field(None, ge=0, le=256)
    accelerator: str | None = Field(None, description="Kind of GPU by Ray's label.")


class FinisherArgs(_Args):
    """The CPU stage that cleans up, exports and draws previews."""

    num_replicas: int = Field(1, ge=1, le=1024)
    concurrency: int = Field(
        default_factory=lambda: get_settings().max_workers,
        ge=1,
        le=256,
        description="Meshes at once in one replica; DREAM_CAD_MAX_WORKERS when not given.",
    )
    preview_size: int = Field(384, ge=16, le=2048, description="Height of previews in pixels.")
    num_cpus: float | None = Field(None, ge=0, le=256)


class LimitsArgs(_Args):
    """What one request and the whole queue may cost."""

    max_pending: int = Field(100_000, ge=1, description="Waiting jobs; more are refused with 429.")
    max_body_bytes: int = Field(48 * _MEBIBYTE, ge=1024)
    max_attempts: int = Field(3, ge=1, le=20)
    job_timeout_s: float = Field(1800.0, gt=0, description="Working time of one attempt.")
    generate_timeout_s: float = Field(60.0, gt=0, description="Default wait of POST /v1/generate.")
    max_wait_s: float = Field(3600.0, gt=0, description="Longest wait of POST /v1/generate.")
    result_ttl_s: float | None = Field(
        None, gt=0, description="Results are deleted after so long; kept when not given."
    )
    keep_records_s: float = Field(
        90 * 86_400.0, gt=0, description="Records of jobs without a result are kept so long."
    )


class QueueArgs(_Args):
    """The queue and its router."""

    lease_s: float = Field(30.0, gt=0, description="A claim lapses after so long without a sign.")
    look_ahead: int = Field(1, ge=0, le=8, description="Jobs prepared before a slot is free.")
    retry_backoff_s: float = Field(1.0, ge=0, description="Rest before another attempt.")
    cancel_grace_s: float = Field(10.0, gt=0, description="Time to stop before it is forced.")
    ageing_s: float = Field(
        1200.0, gt=0, description="Waiting time after which a job ranks one priority higher."
    )
    routers: int = Field(
        1, ge=1, le=64, description="Router replicas; more than one needs PostgreSQL."
    )


class AppArgs(_Args):
    """The application: every field has a default that works on a laptop."""

    models: list[ModelArgs] = Field(
        default_factory=lambda: [ModelArgs(name=get_settings().default_model)], min_length=1
    )
    modules: list[str] = Field(
        default_factory=list, description="Modules to import, whose @register_model adds models."
    )
    database_url: str | None = Field(None, description="SQLAlchemy URL; SQLite in output_dir.")
    output_dir: str | None = Field(
        None, description="Folder or s3:// URI of artifacts; shared storage if nodes are several."
    )
    gpu_memory_gb: float | None = Field(
        None, gt=0, description="Memory of the cluster's GPUs; asked of the nodes if not given."
    )
    placement: Literal["spread", "pack"] = Field(
        "spread",
        description="spread: a model may be on every kind of GPU that holds it; pack: on the "
        "smallest kind only, which keeps large GPUs free for large models.",
    )
    text_to_image: TextToImageArgs = TextToImageArgs()
    finisher: FinisherArgs = FinisherArgs()
    limits: LimitsArgs = LimitsArgs()
    queue: QueueArgs = QueueArgs()
    edge: EdgeArgs = EdgeArgs()
    fetch: FetchArgs = FetchArgs()
    webhooks: WebhookArgs = WebhookArgs()
    ui: bool = Field(True, description="Serve the web interface at /; it needs the extra ui.")

    @field_validator("models")
    @classmethod
    def _names_once(cls, models: list[ModelArgs]) -> list[ModelArgs]:
        names = [model.name for model in models]
        if len(set(names)) != len(names):
            raise ValueError("each model may be listed once")
        return models
