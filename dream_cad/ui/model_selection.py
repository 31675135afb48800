"""ModelSelectionUI: the web interface of a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dream_cad.exceptions import InvalidConfigError
from dream_cad.settings import get_settings
from dream_cad.ui.votes import VOTES_FILE

if TYPE_CHECKING:
    import httpx

    from dream_cad.ui.desk import KeyOf


class ModelSelectionUI:
    """Makes the web interface of one server.

    Args:
        server: base URL; ``DREAM_CAD_SERVER`` if None.
        api_key: shown to the server; ``DREAM_CAD_API_KEY`` if None.
        transport: replaces the network; the gateway answers its own interface in process.
        key_of: returns the API key of a browser's request, where every visitor has their own.
        data_folder: where votes are kept; ``DREAM_CAD_OUTPUT_DIR`` if None.
    """

    def __init__(
        self,
        server: str | None = None,
        api_key: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        key_of: KeyOf | None = None,
        data_folder: Path | None = None,
    ) -> None:
        self._server, self._api_key = server, api_key
        self._transport, self._key_of = transport, key_of
        self._data_folder = data_folder or get_settings().output_dir

    def create_interface(self) -> Any:
        """Return the interface, a ``gradio.Blocks``; ``launch()`` serves it.

        ``launch(share=True)`` asks Gradio's relay for a public address, where the network allows.

        Raises:
            InvalidConfigError: gradio is not installed, or ``server`` is no URL.
        """
        try:
            import gradio  # noqa: F401  (the extra is optional)
        except ModuleNotFoundError as error:
            raise InvalidConfigError(
                "The web interface needs gradio, which is not installed.",
                hint="pip install 'dream-cad[ui]'",
            ) from error
        from dream_cad.ui.desk import Desk
        from dream_cad.ui.layout import build_interface

        desk = Desk(self._server, self._api_key, self._transport, self._key_of)
        return build_interface(desk, self._data_folder / VOTES_FILE)
