"""What administrators do: pause, drain, licences, keys."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel

from deployments.http.deps import Admin, App, problems
from deployments.http.schemas import LicenseAcceptance, PauseRequest
from deployments.http.services import Services
from dream_cad.exceptions import ModelNotFoundError

router = APIRouter(prefix="/v1/admin", tags=["admin"])


class QueueDocument(BaseModel):
    """What rests."""

    all_paused: bool
    paused_models: list[str]
    draining: bool


class LicenseDocument(BaseModel):
    """A model's licence and who accepted it."""

    model: str
    license: str
    accepted_by: str
    accepted_at: datetime


class LicensesDocument(BaseModel):
    """All acceptances."""

    licenses: list[LicenseDocument]


class KeyDocument(BaseModel):
    """An API key; its secret is shown once, where it is made: ``dream-cad keys create``."""

    id: str
    name: str
    scopes: list[str]
    rate_per_minute: int | None
    max_pending: int | None
    weight: float
    created_at: datetime
    revoked_at: datetime | None


class KeysDocument(BaseModel):
    """All API keys."""

    keys: list[KeyDocument]


@router.get("/queue")
async def get_queue(app: App, who: Admin) -> QueueDocument:
    """Return what is paused, and whether the server drains."""
    return await _queue(app)


@router.post("/pause", responses=problems(404, 415))
async def pause(body: PauseRequest, app: App, who: Admin) -> QueueDocument:
    """Start no more jobs, of one model or at all; those that run go on, new ones are accepted."""
    _check_model(app, body.model)
    await app.router.pause(body.model)
    return await _queue(app)


@router.post("/resume", responses=problems(404, 415))
async def resume(body: PauseRequest, app: App, who: Admin) -> QueueDocument:
    """Start jobs again."""
    _check_model(app, body.model)
    await app.router.resume(body.model)
    return await _queue(app)


@router.post("/drain")
async def drain(app: App, who: Admin) -> QueueDocument:
    """Start no more jobs until the upgrade is done; the queue keeps what is submitted."""
    await app.router.drain()
    return await _queue(app)


@router.delete("/drain")
async def undrain(app: App, who: Admin) -> QueueDocument:
    """End draining."""
    await app.router.undrain()
    return await _queue(app)


@router.get("/licenses")
async def list_licenses(app: App, who: Admin) -> LicensesDocument:
    """List the licences that were accepted."""
    return await _licenses(app)


@router.post("/licenses", responses=problems(404, 415))
async def accept_license(body: LicenseAcceptance, app: App, who: Admin) -> LicensesDocument:
    """Accept a model's licence; only then is the model served."""
    _check_model(app, body.model)
    license = app.plans[body.model].weights_license or "unknown"
    await app.router.accept_license(body.model, license, who.id or "local administrator")
    return await _licenses(app)


@router.get("/keys")
async def list_keys(app: App, who: Admin) -> KeysDocument:
    """List API keys, without their secrets."""
    keys = [
        KeyDocument(
            id=key.id,
            name=key.name,
            scopes=sorted(key.scopes),
            rate_per_minute=key.rate_per_minute,
            max_pending=key.max_pending,
            weight=key.weight,
            created_at=key.created_at,
            revoked_at=key.revoked_at,
        )
        for key in await app.router.keys()
    ]
    return KeysDocument(keys=keys)


def _check_model(app: Services, name: str | None) -> None:
    if name is not None and name not in app.plans:
        raise ModelNotFoundError(
            f"There is no model {name[:80]!r}.", hint=f"Models: {', '.join(app.plans)}."
        )


async def _queue(app: Services) -> QueueDocument:
    switches = await app.router.switches()
    return QueueDocument(
        all_paused=switches.all_paused,
        paused_models=list(switches.models),
        draining=switches.draining,
    )


async def _licenses(app: Services) -> LicensesDocument:
    return LicensesDocument(
        licenses=[
            LicenseDocument(
                model=entry.model,
                license=entry.license,
                accepted_by=entry.accepted_by,
                accepted_at=entry.accepted_at,
            )
            for entry in await app.router.licenses()
        ]
    )
