"""The gateway: a stateless HTTP ingress that validates, and asks the router."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.args import AppArgs
from deployments.gateway_client import GatewayClient
from deployments.http.api import build_api
from deployments.http.auth import Authenticator
from deployments.http.fetching import ImageFetcher
from deployments.http.intake import Intake
from deployments.http.results import ResultReader
from deployments.http.services import Services
from deployments.plan import ModelPlan
from deployments.process import import_modules
from dream_cad.artifacts import ArtifactStore
from dream_cad.log import configure_logging


# The application is built in the replica (`__serve_build_asgi_app__`), not handed to `ingress`:
# Serve would pickle it with all its routes.
@serve.ingress()
class Gateway:
    """The HTTP API. Keeps no state: any number of replicas may run.

    Args:
        args: the application's arguments.
        plans: all models, deployed or not.
        router: the router's handle.
        artifacts_root: where uploads and results are.
        has_text_stage: whether prompts can be made into pictures here.
    """

    def __init__(
        self,
        args: AppArgs,
        plans: list[ModelPlan],
        router: DeploymentHandle[Any],
        artifacts_root: str,
        has_text_stage: bool,
    ) -> None:
        configure_logging()
        import_modules(args.modules)
        client = GatewayClient(router)
        artifacts = ArtifactStore(artifacts_root)
        intake = Intake(
            plans,
            args.models[0].name,
            args.limits.max_attempts,
            has_text_stage=has_text_stage,
            text_source=args.text_to_image.source,
            webhooks=args.webhooks,
        )
        auth = Authenticator(
            client.verify_key,
            client.any_key,
            cache_s=args.edge.key_cache_s,
            anonymous_rate=args.edge.anonymous_rate_per_minute,
        )
        self._services = Services(
            args=args,
            plans={plan.name: plan for plan in plans},
            router=client,
            artifacts=artifacts,
            results=ResultReader(artifacts),
            intake=intake,
            auth=auth,
            fetcher=ImageFetcher(args.fetch),
            data_folder=None if "://" in artifacts_root else Path(artifacts_root).parent,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the API; Serve calls it after the constructor."""
        return build_api(self._services)
