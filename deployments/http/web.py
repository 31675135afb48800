"""The web interface at ``/``: who may see it, signing in, and what is said where it is missing."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from html import escape
from typing import Annotated, Any

from fastapi import FastAPI, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.requests import HTTPConnection
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.http.in_process import InProcessTransport
from deployments.http.services import Services
from dream_cad.ui import ModelSelectionUI

COOKIE = "dream_cad_key"
_SIGN_IN = "/ui/sign-in"
_PATIENCE_S = 0.5
_OPENING = """<p role="status">The web interface is being opened …</p>
<meta http-equiv="refresh" content="1">"""
_IN_PROCESS = "http://127.0.0.1"
_OWN_PATHS = ("/gradio_api/", "/assets/", "/static/", "/svelte/")
_OWN_FILES = frozenset({"/", "/config", "/theme.css", "/favicon.ico", "/robots.txt"})
# Scripts are Gradio's and ours, inlined and compiled in the page; no other host is asked.
_POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    "frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>dream_cad</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;max-width:32em;
margin:12vh auto;padding:0 20px}}input,button{{font:inherit;padding:8px 12px;width:100%;
box-sizing:border-box;margin-top:8px}}</style></head><body><main><h1>dream_cad</h1>{body}</main>
</body></html>"""


def add_web_interface(api: FastAPI, services: Services) -> None:
    """Serve the web interface at ``/`` behind the API's routes, or say there why there is none.

    It is made when somebody first opens it: gradio's import takes seconds that a server which only
    programs talk to need not spend.
    """
    if not services.args.ui:
        _say(api, "The web interface is switched off here (args.ui).")
    elif importlib.util.find_spec("gradio") is None:
        _say(api, "The web interface is not installed here: pip install 'dream-cad[ui]'.")
    else:
        _add_sign_in(api, services)
        api.router.routes.append(InterfaceMount(_Interface(api, services), services))


class _Interface:
    """The interface as an application that comes into being with its first visitor."""

    def __init__(self, api: FastAPI, services: Services) -> None:
        self._api, self._services = api, services
        self._making: asyncio.Task[ASGIApp] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._making is None:
            self._making = self._services.detached.start(self._make())
        if not self._making.done():
            await asyncio.wait({self._making}, timeout=_PATIENCE_S)
        if self._making.done():
            await self._making.result()(scope, receive, send)
            return
        answer = HTMLResponse(_PAGE.format(body=_OPENING), headers={"Cache-Control": "no-store"})
        await answer(scope, receive, send)

    async def _make(self) -> ASGIApp:
        # With a running loop: Gradio makes loops where there is none, and leaves them open.
        outer = await asyncio.to_thread(lambda: asyncio.run(self._mounted()))
        # Its life is the replica's, whose end takes it along; the queue starts with it.
        await contextlib.AsyncExitStack().enter_async_context(outer.router.lifespan_context(outer))
        return outer

    async def _mounted(self) -> FastAPI:
        import gradio

        blocks = ModelSelectionUI(
            _IN_PROCESS,
            transport=InProcessTransport(self._api),
            key_of=lambda page: page.request.cookies.get(COOKIE),  # as they came
            data_folder=self._services.data_folder,
        ).create_interface()
        outer = FastAPI(openapi_url=None)
        gradio.mount_gradio_app(
            outer,
            blocks,
            path="/",
            max_file_size=self._services.args.limits.max_body_bytes,
            **blocks.serving_arguments(),
        )
        return outer


class InterfaceMount(Mount):
    """Hands the interface its own paths only, and only to those who may see it.

    Any other path stays the API's, whose answers to unknown paths and methods are problems.

    Args:
        app: the interface.
        services: whose authenticator decides.
    """

    def __init__(self, app: ASGIApp, services: Services) -> None:
        super().__init__("/", app=app)
        self._services = services

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the interface's paths."""
        path = str(scope.get("path", ""))
        if path not in _OWN_FILES and not path.startswith(_OWN_PATHS):
            return Match.NONE, {}
        return super().matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or ask to sign in."""
        connection = HTTPConnection(scope)
        if await self._services.auth.admits(connection, connection.cookies.get(COOKIE)):
            await super().handle(scope, receive, _with_headers(send))
            return
        page = sign_in_page("") if scope["path"] == "/" else Response("Sign in first.", 401)
        await page(scope, receive, send)


def _with_headers(send: Send) -> Send:
    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return dressed


def sign_in_page(problem: str) -> Response:
    """Return the form that asks for an API key; it is kept in a cookie that scripts cannot read."""
    alert = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    form = (
        f'{alert}<form method="post" action="{_SIGN_IN}"><label for="key">API key</label>'
        '<input id="key" name="key" type="password" autocomplete="current-password" required>'
        "<button>Sign in</button></form>"
    )
    return HTMLResponse(_PAGE.format(body=form), 401, headers={"Cache-Control": "no-store"})


def _add_sign_in(api: FastAPI, services: Services) -> None:
    @api.post(_SIGN_IN, include_in_schema=False)
    async def sign_in(request: Request, key: Annotated[str, Form(max_length=256)]) -> Response:
        if not await services.auth.admits(request, key.strip()):
            return sign_in_page("This key is not valid, or was revoked.")
        answer = RedirectResponse("/", 303)
        is_secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, key.strip(), httponly=True, samesite="strict", secure=is_secure)
        return answer


def _say(api: FastAPI, why: str) -> None:
    @api.get("/", include_in_schema=False)
    async def no_interface() -> HTMLResponse:
        links: Any = '<p>The API is here all the same: <a href="/docs">/docs</a>.</p>'
        return HTMLResponse(_PAGE.format(body=f"<p>{escape(why)}</p>{links}"))
