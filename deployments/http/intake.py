"""From a parsed request to a job that is worth queueing: everything is checked before."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any

from pydantic import BaseModel, ValidationError

from deployments.http.body import Submission
from deployments.http.errors import invalid_request
from deployments.http.schemas import JobRequest
from deployments.options import TEXT_OPTIONS, FinishOptions
from deployments.plan import ModelPlan
from dream_cad.exceptions import InvalidConfigError, ModelUnavailableError
from dream_cad.images.loading import load_image
from dream_cad.models.registry import resolve_implementation
from dream_cad.prompts import check_prompt
from dream_cad.queue import GenerationJob
from dream_cad.queue.jobs import new_job_id

FORMATS = ("glb", "obj", "ply", "stl")
_SEED_BITS = 31


class Intake:
    """Checks requests against the models that are served.

    Args:
        plans: all models, deployed or not.
        default_model: taken when a request names none.
        max_attempts: of each job.
        has_text_stage: whether prompts can be made into pictures here.
    """

    def __init__(
        self, plans: list[ModelPlan], default_model: str, max_attempts: int, *, has_text_stage: bool
    ) -> None:
        self._plans = {plan.name: plan for plan in plans}
        self.default_model = default_model
        self._max_attempts = max_attempts
        self._has_text_stage = has_text_stage

    def make_job(self, submission: Submission, idempotency_key: str | None) -> GenerationJob:
        """Return the job of a valid request. Decodes the picture: call it in a thread.

        Raises:
            InvalidConfigError: prompt, model, option or format are not acceptable; names the
                legal ones.
            ModelUnavailableError: the model cannot run here.
            FileFormatError: the picture is damaged, or of an unsupported kind.
            PayloadTooLargeError: the picture is too large.
        """
        request = submission.request
        plan = self._plan_of(request.model or self.default_model)
        check_format(request.format, plan)
        prompt = self._check_input(submission, plan)
        options = check_options(plan, request.options, is_text=submission.image is None)
        job_id = new_job_id()
        return GenerationJob(
            id=job_id,
            prompt=prompt,
            model_name=plan.name,
            config=_with_seed(plan, options),
            priority=request.job_priority,
            input_uri=None if submission.image is None else f"{job_id}-input",
            max_attempts=self._max_attempts,
            idempotency_key=idempotency_key,
            request_hash=_hash(request, plan.name, submission.image),
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

    def _check_input(self, submission: Submission, plan: ModelPlan) -> str:
        prompt, image = submission.request.prompt, submission.image
        if (prompt is None) == (image is None):
            raise InvalidConfigError(
                "Give either a prompt or an image, and not both.",
                hint='Example: {"prompt": "a red wooden chair"}',
            )
        takes = plan.capabilities
        if image is not None:
            if takes is not None and not takes.supports_image_to_3d:
                raise InvalidConfigError(f"Model {plan.name!r} takes prompts, not images.")
            load_image(image)
            return ""
        if takes is not None and not takes.supports_text_to_3d:
            raise InvalidConfigError(f"Model {plan.name!r} takes images, not prompts.")
        if plan.needs_picture and not self._has_text_stage:
            raise ModelUnavailableError(
                f"Model {plan.name!r} needs a text-to-image pipeline, and none is served here.",
                hint="Send an image, or set args.text_to_image.source in serve_config.yaml.",
            )
        return check_prompt(prompt)


def check_format(name: str, plan: ModelPlan) -> None:
    """Refuse a format that the model's results cannot be had in.

    Raises:
        InvalidConfigError: names the legal ones.
    """
    listed = plan.capabilities.output_formats if plan.capabilities is not None else FORMATS
    allowed = [known for known in FORMATS if known in listed]
    if name not in allowed:
        raise InvalidConfigError(
            f"{name[:40]!r} is not a format of model {plan.name!r}.",
            hint=f"Formats: {', '.join(allowed)}.",
            details={"allowed": allowed},
        )


def check_options(plan: ModelPlan, options: dict[str, Any], *, is_text: bool) -> dict[str, Any]:
    """Return the options, validated by the model's and the finisher's own rules.

    Raises:
        InvalidConfigError: unknown, out of range, or of no use for the kind of input.
    """
    finish_names = plan.finish_options
    finish = {name: value for name, value in options.items() if name in finish_names}
    model = {name: value for name, value in options.items() if name not in finish_names}
    if not is_text and plan.needs_picture and (useless := TEXT_OPTIONS & model.keys()):
        raise InvalidConfigError(
            f"{', '.join(sorted(useless))} concern the text stage, and an image needs none."
        )
    rules = model_options(plan)
    legal = [*(rules.model_fields if rules is not None else ()), *sorted(finish_names)]
    checked = _checked(FinishOptions, finish, legal)
    return checked | (model if rules is None else _checked(rules, model, legal))


def model_options(plan: ModelPlan) -> type[BaseModel] | None:
    """Return the pydantic model of a served model's options, if it states one."""
    return resolve_implementation(plan.name).options_model()


def options_schema(plan: ModelPlan) -> dict[str, Any]:
    """Return the JSON schema of a model's options and of the finisher's, as one flat object."""
    finish = FinishOptions.model_json_schema()["properties"]
    finish = {name: finish[name] for name in sorted(plan.finish_options)}
    rules = model_options(plan)
    if rules is None:
        return {"type": "object", "properties": finish, "additionalProperties": True}
    own = rules.model_json_schema()
    return {**own, "properties": {**finish, **own.get("properties", {})}}


def _checked(rules: type[BaseModel], options: dict[str, Any], legal: list[str]) -> dict[str, Any]:
    try:
        return rules.model_validate(options).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        problem = invalid_request(error.errors(include_url=False), "The options are not valid.")
        raise InvalidConfigError(
            problem["detail"],
            hint=f"Options: {', '.join(legal)}.",
            details={"errors": problem["errors"], "allowed": legal},
        ) from error


def _with_seed(plan: ModelPlan, options: dict[str, Any]) -> dict[str, Any]:
    """Draw the seed here when none is given: text stage and model share it, and it is on record."""
    rules = model_options(plan)
    if rules is None or "seed" not in rules.model_fields or options.get("seed") is not None:
        return options
    return {**options, "seed": secrets.randbits(_SEED_BITS)}


def _hash(request: JobRequest, model_name: str, image: bytes | None) -> str:
    facts = request.model_dump(mode="json", exclude={"image"})
    facts["model"] = model_name
    facts["image_sha256"] = None if image is None else hashlib.sha256(image).hexdigest()
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
