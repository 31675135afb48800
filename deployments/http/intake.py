"""From parsed requests to jobs that are worth queueing: everything is checked before."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dream_cad
from deployments.http.body import Submission
from deployments.http.checks import check_format, check_options, takes_option
from deployments.http.meshes import check_glb_mesh, check_takes_mesh, mesh_source
from deployments.http.outbound import HostGuard
from deployments.http.request_id import request_id_var
from deployments.http.schemas import BatchItem, BatchRequest, SharedFields
from deployments.http.settings import WebhookArgs
from deployments.http.views import check_views, fingerprint, input_files
from deployments.messages import INPUT_MESH
from deployments.plan import ModelPlan
from dream_cad.exceptions import DreamCadError, InvalidConfigError, ModelUnavailableError
from dream_cad.images.loading import load_image
from dream_cad.prompts import check_prompt
from dream_cad.queue import GenerationJob, JobPriority
from dream_cad.queue.jobs import new_job_id

_SEED_BITS = 31
_MAX_ERRORS = 20
_BESIDE_THE_HASH = {"image", "image_url", "images", "mesh", "model", "models"}


@dataclass(frozen=True)
class Prepared:
    """A job and the files to store before it is added: its pictures, by name."""

    job: GenerationJob
    files: dict[str, bytes]


@dataclass(frozen=True)
class _Kind:
    """What jobs with the same models, options and kind of input share.

    Their records hold the same policy and tags objects, which makes a batch of thousands cheap
    to build and to send.
    """

    plans: list[ModelPlan]
    options: dict[str, Any]
    takes_seed: bool
    facts: bytes
    policy: dict[str, Any]
    tags: list[str]
    depends_on: list[str]


class Intake:
    """Checks requests against the models that are served.

    Args:
        plans: all models, deployed or not.
        default_model: taken when a request names none.
        max_attempts: of each job.
        has_text_stage: whether prompts can be made into pictures here.
        text_source: what makes them; part of what a result depends on.
        webhooks: which hosts may be called.
    """

    def __init__(
        self,
        plans: Sequence[ModelPlan],
        default_model: str,
        max_attempts: int,
        *,
        has_text_stage: bool,
        text_source: str | None = None,
        webhooks: WebhookArgs | None = None,
    ) -> None:
        self._plans = {plan.name: plan for plan in plans}
        self.default_model = default_model
        self._max_attempts = max_attempts
        self._has_text_stage = has_text_stage
        self._text_source = text_source
        self._webhooks = webhooks or WebhookArgs()
        self._hooks_guard = HostGuard(self._webhooks.allowed_hosts, self._webhooks.allowed_networks)

    def make_job(
        self, submission: Submission, owner: str = "", idempotency_key: str | None = None
    ) -> Prepared:
        """Return the job of a valid request. Decodes the picture: call it in a thread.

        Raises:
            InvalidConfigError: prompt, model, option or format are not acceptable; names the
                legal ones.
            ModelUnavailableError: the model cannot run here.
            FileFormatError: the picture is damaged, or of an unsupported kind.
            PayloadTooLargeError: the picture is too large.
        """
        request, views = submission.request, submission.views
        self._check_shared(request, owner)
        names = request.models or [request.model or self.default_model]
        pictures = [submission.image] if submission.image is not None else list(views.values())
        kind = self._kind(request, names, request.options, owner, is_text=not pictures)
        if submission.image is not None and views:
            raise InvalidConfigError("Give either an image or several images, and not both.")
        for plan in kind.plans if views else ():
            check_views(plan, views)
        prompt = self._check_input(request.prompt, pictures, kind.plans)
        source = fingerprint(views) if views else submission.image
        files = input_files(submission.image, views)
        if submission.mesh is not None:
            self._check_mesh(submission.mesh, views, kind.plans)
            source = mesh_source(submission.mesh, submission.image, prompt)
            files[INPUT_MESH] = submission.mesh
        job = self._job(request, kind, prompt, source, owner)
        if views:
            job.policy = {**job.policy, "views": list(views)}
        if submission.mesh is not None:
            job.policy = {**job.policy, "mesh": True, "picture": submission.image is not None}
        job.idempotency_key = idempotency_key
        job.request_hash = _hash(request, names, source)
        return Prepared(job, files)

    @staticmethod
    def _check_mesh(mesh: bytes, views: Mapping[str, bytes], plans: Sequence[ModelPlan]) -> None:
        if views:
            raise InvalidConfigError("Beside a mesh there can be one picture, not several.")
        for plan in plans:
            check_takes_mesh(plan)
        check_glb_mesh(mesh)

    def make_jobs(
        self,
        batch: BatchRequest,
        images: Sequence[bytes | None],
        owner: str = "",
        idempotency_key: str | None = None,
    ) -> list[Prepared]:
        """Return the jobs of a valid batch, in order. Call it in a thread.

        Args:
            batch: the request.
            images: the decoded picture of each item, or None.
            owner: whose jobs they are.
            idempotency_key: of the batch; its first job carries it.

        Raises:
            InvalidConfigError: lists the items that are not acceptable, up to 20 of them.
        """
        self._check_shared(batch, owner)
        items = batch.items or [BatchItem(prompt=prompt) for prompt in batch.prompts or ()]
        kinds: dict[str, _Kind] = {}
        prepared: list[Prepared] = []
        errors: list[dict[str, Any]] = []
        for index, (item, image) in enumerate(zip(items, images, strict=True)):
            try:
                prepared.append(self._item(batch, item, image, owner, kinds))
            except DreamCadError as error:
                errors.append({"field": f"items.{index}", "message": str(error)[:500]})
                if len(errors) == _MAX_ERRORS:
                    break
        if errors:
            first = f"{errors[0]['field']}: {errors[0]['message']}"
            raise InvalidConfigError(
                f"The batch is not valid, and nothing of it was queued. {first}",
                details={"errors": errors},
            )
        if idempotency_key is not None:
            head = prepared[0].job
            head.idempotency_key = idempotency_key
            head.request_hash = _hash_batch(batch, images)
        return prepared

    def again(
        self, old: GenerationJob, owner: str, idempotency_key: str | None = None
    ) -> GenerationJob:
        """Return a fresh job with the receipt of an earlier one, its seed included.

        It is generated anew: neither the cache nor the earlier job's webhook takes part.
        """
        job_id = new_job_id()
        policy = {**old.policy, "use_cache": False, "webhook": None}
        policy["request_id"] = request_id_var.get()
        return GenerationJob(
            id=job_id,
            prompt=old.prompt,
            model_name=old.model_name,
            config=dict(old.config),
            priority=old.priority,
            input_uri=None if old.input_uri is None else f"{job_id}-input",
            max_attempts=self._max_attempts,
            owner=owner,
            tags=list(old.tags),
            policy=policy,
            idempotency_key=idempotency_key,
            request_hash=None if idempotency_key is None else repeat_hash("rerun", old.id),
        )

    def _item(
        self,
        batch: BatchRequest,
        item: BatchItem,
        image: bytes | None,
        owner: str,
        kinds: dict[str, _Kind],
    ) -> Prepared:
        options = batch.options if item.options is None else {**batch.options, **item.options}
        key = f"{item.model}|{image is None}|" + (
            "" if item.options is None else json.dumps(options, sort_keys=True)
        )
        kind = kinds.get(key)
        if kind is None:
            models = [item.model] if item.model is not None else batch.models
            names = models or [batch.model or self.default_model]
            kind = self._kind(batch, names, options, owner, is_text=image is None)
            kinds[key] = kind
        prompt = self._check_input(item.prompt, [] if image is None else [image], kind.plans)
        job = self._job(batch, kind, prompt, image, owner)
        if item.priority is not None:
            job.priority = JobPriority[item.priority.upper()]
        if item.tags is not None:
            job.tags = sorted({*batch.tags, *item.tags})
        return Prepared(job, input_files(image, {}))

    def _check_shared(self, request: SharedFields, owner: str) -> None:
        check_format(request.format)
        if request.webhook is None:
            return
        if owner == "" and self._webhooks.secret is None:
            raise InvalidConfigError(
                "There is no secret to sign webhooks with.",
                hint="Use an API key, or have an administrator set args.webhooks.secret.",
            )
        self._hooks_guard.check(request.webhook)

    def _kind(
        self,
        request: SharedFields,
        names: list[str],
        options: dict[str, Any],
        owner: str,
        *,
        is_text: bool,
    ) -> _Kind:
        plans = [self._plan_of(name) for name in names]
        checked = [check_options(plan, options, is_text=is_text) for plan in plans]
        facts = {
            "owner": owner,  # a hit must not tell one client what another asked for
            "version": dream_cad.__version__,
            "models": [[plan.name, plan.checkpoint, plan.options] for plan in plans],
            "text": self._text_source,
            "options": checked,
            "require": request.require.model_dump(),
            "policy": [request.pick, request.max_tries],
        }
        return _Kind(
            plans,
            checked[0],
            takes_seed=all(takes_option(plan, "seed") for plan in plans),
            facts=json.dumps(facts, sort_keys=True, default=str).encode(),
            policy={**request.policy(names), "request_id": request_id_var.get()},
            tags=sorted(set(request.tags)),
            depends_on=list(dict.fromkeys(request.depends_on)),
        )

    def _job(
        self, request: SharedFields, kind: _Kind, prompt: str, source: bytes | None, owner: str
    ) -> GenerationJob:
        """Build the job; ``source`` is its picture, or what tells its pictures from others."""
        job_id = new_job_id()
        now = datetime.now(UTC)
        wait = request.max_wait_s
        return GenerationJob(
            id=job_id,
            prompt=prompt,
            model_name=kind.plans[0].name,
            config=_with_seed(kind),
            priority=request.job_priority,
            input_uri=None if source is None else f"{job_id}-input",
            max_attempts=self._max_attempts,
            owner=owner,
            tags=kind.tags,
            depends_on=kind.depends_on,
            deadline=request.deadline,
            start_by=None if wait is None else now + timedelta(seconds=wait),
            policy=kind.policy,
            cache_key=_cache_key(kind.facts, prompt, source) if request.use_cache else None,
            created_at=now,
        )

    def _plan_of(self, name: str) -> ModelPlan:
        plan = self._plans.get(name)
        if plan is None:
            raise InvalidConfigError(
                f"There is no model {name[:80]!r}.",
                hint=f"Models: {', '.join(self._plans)}.",
                details={"allowed": list(self._plans)},
            )
        if not plan.is_deployed:
            raise ModelUnavailableError(
                f"Model {name!r} is not served here: {plan.reason}.",
                hint="GET /v1/models lists what is.",
                details={"model": name},
            )
        return plan

    def _check_input(
        self, prompt: str | None, pictures: Sequence[bytes], plans: list[ModelPlan]
    ) -> str:
        if (prompt is None) == (not pictures):
            raise InvalidConfigError(
                "Give either a prompt or an image, and not both.",
                hint='Example: {"prompt": "a red wooden chair"}',
            )
        for plan in plans:
            self._check_kind(plan, is_text=not pictures)
        for picture in pictures:
            load_image(picture)
        return "" if pictures else check_prompt(prompt)

    def _check_kind(self, plan: ModelPlan, *, is_text: bool) -> None:
        takes = plan.capabilities
        if takes is not None and not is_text and not takes.supports_image_to_3d:
            raise InvalidConfigError(f"Model {plan.name!r} takes prompts, not images.")
        if takes is not None and is_text and not takes.supports_text_to_3d:
            raise InvalidConfigError(f"Model {plan.name!r} takes images, not prompts.")
        if is_text and plan.needs_picture and not self._has_text_stage:
            raise ModelUnavailableError(
                f"Model {plan.name!r} needs a text-to-image pipeline, and none is served here.",
                hint="Send an image, or set args.text_to_image.source in serve_config.yaml.",
            )


def repeat_hash(verb: str, subject: str) -> str:
    """Return the request hash of doing something again to a job or batch."""
    return hashlib.sha256(f"{verb} {subject}".encode()).hexdigest()


def _with_seed(kind: _Kind) -> dict[str, Any]:
    """Draw the seed here when none is given: text stage and model share it, and it is on record."""
    options = kind.options
    if options.get("seed") is not None or not kind.takes_seed:
        return dict(options)
    return {**options, "seed": secrets.randbits(_SEED_BITS)}


def _cache_key(facts: bytes, prompt: str, image: bytes | None) -> str:
    digest = hashlib.sha256(facts)
    digest.update(b"\0prompt\0" + prompt.encode() if image is None else b"\0image\0" + image)
    return digest.hexdigest()


def _hash(request: SharedFields, names: list[str], image: bytes | None) -> str:
    facts = request.model_dump(mode="json", exclude=_BESIDE_THE_HASH)
    facts["models"] = names
    facts["image_sha256"] = None if image is None else hashlib.sha256(image).hexdigest()
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _hash_batch(batch: BatchRequest, images: Sequence[bytes | None]) -> str:
    digest = hashlib.sha256(b"batch")
    digest.update(batch.model_dump_json(exclude={"items": {"__all__": {"image"}}}).encode())
    for image in images:
        digest.update(b"-" if image is None else hashlib.sha256(image).digest())
    return digest.hexdigest()
