"""The page around the interface: style, scripts, and nothing from any other host."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import gradio as gr

TITLE = "dream_cad"
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def page_arguments() -> dict[str, Any]:
    """Return how the page is dressed, as ``launch`` and ``mount_gradio_app`` take it."""
    return {
        "theme": _theme(),
        "css": _asset("ui/assets/app.css"),
        "head": _head(),
        "footer_links": [],
        "run_history": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "pwa": False,
    }


def _theme() -> Any:
    blue = gr.themes.colors.indigo
    theme = gr.themes.Base(
        primary_hue=blue,
        secondary_hue=blue,
        neutral_hue=gr.themes.colors.slate,
        font=list(_FONTS),
        font_mono=list(_MONO),
        radius_size=gr.themes.sizes.radius_md,
    )
    return theme.set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
        button_primary_background_fill_dark="*primary_600",
        body_background_fill="*neutral_50",
        block_border_width="1px",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )


@cache
def _head() -> str:
    viewer = _asset("benchmark/pages/viewer.js")
    # The name of the page is there before Gradio's scripts have loaded.
    splash = (
        "<style>gradio-app:not(:has(.gradio-container))::before{content:'dream_cad';"
        "font:600 22px system-ui,sans-serif;padding:18px 24px}</style>"
    )
    icon = '<link rel="icon" href="data:,">'
    own = _asset("ui/assets/app.js")
    return f"{icon}{splash}<script>{viewer}</script><script>{own}</script>"


def _asset(path: str) -> str:
    return (files("dream_cad") / path).read_text(encoding="utf-8")
