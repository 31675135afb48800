"""Files that the browser may fetch: results copied from the server, the oldest given up first."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path

_MOST_FILES = 200
_MOST_BYTES = 2 * 2**30


class Shelf:
    """A temporary folder of files under names that cannot be guessed; gone with the process.

    Args:
        most_files: files kept.
        most_bytes: bytes kept, unless one file alone is larger.
    """

    def __init__(self, most_files: int = _MOST_FILES, most_bytes: int = _MOST_BYTES) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dream-cad-ui-")).resolve()
        self._most_files, self._most_bytes = most_files, most_bytes
        self._paths: OrderedDict[tuple[str, ...], Path] = OrderedDict()
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    async def get(
        self, key: tuple[str, ...], name: str, fetch: Callable[[Path], Awaitable[Path]]
    ) -> Path:
        """Return the file of a key; fetched under ``name`` the first time.

        Args:
            key: whose it is and what; visitors with other API keys never share a file.
            name: as the browser saves it.
            fetch: writes it to a path.
        """
        known = self._paths.get(key)
        if known is not None and known.exists():
            self._paths.move_to_end(key)
            return known
        folder = self.folder / secrets.token_urlsafe(16)
        folder.mkdir()
        try:
            path = await fetch(folder / name)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._paths[key] = path
        self._give_up_oldest()
        return path

    def _give_up_oldest(self) -> None:
        while len(self._paths) > 1 and self._is_full():
            _, path = self._paths.popitem(last=False)
            shutil.rmtree(path.parent, ignore_errors=True)

    def _is_full(self) -> bool:
        if len(self._paths) > self._most_files:
            return True
        sizes = (path.stat().st_size for path in self._paths.values() if path.exists())
        return sum(sizes) > self._most_bytes
