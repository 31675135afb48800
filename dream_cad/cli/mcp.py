"""``dream-cad mcp``: a server's jobs as tools for assistants (Model Context Protocol, stdio)."""

from __future__ import annotations

from dream_cad.cli.remote import ApiKey, Server
from dream_cad.client import AsyncClient
from dream_cad.exceptions import InvalidConfigError

_PATIENCE_S = 10.0


def mcp(server: Server = None, api_key: ApiKey = None) -> None:
    """Serve jobs to assistants as MCP tools, on standard input and output."""
    try:
        from dream_cad.cli.mcp_server import create_server
    except ImportError as error:
        raise InvalidConfigError(
            f"The package 'mcp' is needed: {error}.", hint="pip install 'dream-cad[mcp]'"
        ) from error
    client = AsyncClient(server, api_key, patience_s=_PATIENCE_S)  # a wrong address is told now
    create_server(lambda: client).run()
