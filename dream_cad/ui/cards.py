"""Model cards: what each model is good at, what it needs, whether it runs here, which fits best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from dream_cad.client import Model

_GOOD_AT = {
    "triposr": "Quick drafts with colours from one picture or a prompt.",
    "stable-fast-3d": "Textured objects with materials, ready for a game engine.",
    "trellis": "Detailed shapes with texture; takes several views.",
    "hunyuan3d-mini": "Clean, detailed shapes, painted on request; good for printing.",
    "mvdream": "Imaginative objects from words alone.",
}
_ORDER_WITH_GPU = ("trellis", "hunyuan3d-mini", "stable-fast-3d", "triposr", "mvdream")
_ORDER_WITHOUT = ("triposr", "stable-fast-3d", "hunyuan3d-mini", "trellis", "mvdream")
_STATES = {
    "ready": "ready",
    "asleep": "ready, loads first",
    "loading": "loading",
    "failed": "failed",
    "not-deployed": "not served here",
}


def good_at(model: Model) -> str:
    """Return what a model is good at, in a sentence."""
    known = _GOOD_AT.get(model.name)
    if known is not None:
        return known
    abilities = model.capabilities or {}
    sources = [
        word
        for word, key in (("words", "supports_text_to_3d"), ("pictures", "supports_image_to_3d"))
        if abilities.get(key, True)
    ]
    return f"A model of this server, from {' and '.join(sources) or 'its own input'}."


def takes_text(model: Model) -> bool:
    """Return whether a model starts from words."""
    return bool((model.capabilities or {}).get("supports_text_to_3d", True))


def takes_image(model: Model) -> bool:
    """Return whether a model starts from a picture."""
    return bool((model.capabilities or {}).get("supports_image_to_3d", True))


def takes_several(model: Model) -> bool:
    """Return whether a model starts from several pictures of one object."""
    return model.views is not None


def has_gpu(cluster: Mapping[str, Any]) -> bool:
    """Return whether a living node of the cluster has a GPU."""
    return any(
        node.get("alive") and node.get("resources", {}).get("GPU", 0) > 0
        for node in cluster.get("nodes", ())
    )


def suggest(
    models: Sequence[Model],
    default: str,
    cluster: Mapping[str, Any],
    *,
    takes: Callable[[Model], bool] = takes_text,
) -> tuple[str, str]:
    """Return the model that fits this hardware best, and why; empty texts if none can run.

    Args:
        models: as the server lists them.
        default: the server's own choice, which wins where it stands no worse.
        cluster: ``/v1/cluster``.
        takes: whether a model takes this kind of input.
    """
    fitting = {model.name: model for model in models if model.available and takes(model)}
    if not fitting:
        return "", ""
    order = _ORDER_WITH_GPU if has_gpu(cluster) else _ORDER_WITHOUT
    ranked = sorted(fitting, key=lambda name: (_rank(name, order), name != default))
    best = fitting[ranked[0]]
    if len(fitting) == 1:
        return best.name, "the one model that is served here"
    if not has_gpu(cluster):
        return best.name, "the quickest without a GPU"
    return best.name, "the most detailed of those that fit this GPU"


def _rank(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)


def cards_html(models: Sequence[Model], chosen: str, suggestion: tuple[str, str]) -> str:
    """Return the cards as a group of radio buttons; those that cannot run here are disabled."""
    here = "".join(_card(m, m.name == chosen, suggestion) for m in models if m.available)
    others = [_card(model, False, suggestion) for model in models if not model.available]
    more = ""
    if others:
        more = (
            f'<details class="dc-others"{"" if here else " open"}><summary>{len(others)} more, not '
            f'available here</summary><div class="dc-cards">{"".join(others)}</div></details>'
        )
    return f'<fieldset class="dc-cards"><legend>Model</legend>{here}{more}</fieldset>'


def _card(model: Model, is_chosen: bool, suggestion: tuple[str, str]) -> str:
    name = escape(model.name)
    marks = f"{'checked ' if is_chosen else ''}{'' if model.available else 'disabled '}"
    best = (
        f'<span class="dc-badge dc-best" title="{escape(suggestion[1])}">best fit</span>'
        if model.name == suggestion[0]
        else ""
    )
    return (
        f'<label class="dc-card{"" if model.available else " dc-off"}">'
        f'<input type="radio" name="dc-model" value="{name}" data-choice="model" {marks}>'
        f'<span class="dc-card-body"><span class="dc-card-head"><b>{name}</b>{best}'
        f'<span class="dc-state" data-state="{escape(model.state)}">'
        f"{escape(_STATES.get(model.state, model.state))}</span></span>"
        f'<span class="dc-card-text">{escape(good_at(model))}</span>'
        f'<span class="dc-facts">{_facts(model)}</span>'
        f"{_reason(model)}</span></label>"
    )


def _facts(model: Model) -> str:
    abilities = model.capabilities or {}
    is_nano = model.checkpoint == "nano"
    facts = []
    if is_nano:
        facts.append("nano checkpoint: small and rough, runs on a laptop")
    else:
        if time := abilities.get("typical_generation_time"):
            facts.append(f"{time} on a GPU" if time != "unknown" else "")
        if memory := abilities.get("recommended_vram_gb"):
            facts.append(f"{memory:g} GB of GPU memory")
    licence = model.license or abilities.get("license_type")
    if licence and licence != "unknown":
        facts.append(f"{licence} licence")
    return " · ".join(escape(fact) for fact in facts if fact)


def _reason(model: Model) -> str:
    if model.available or not model.reason:
        return ""
    return f'<span class="dc-reason">{escape(model.reason)}</span>'
