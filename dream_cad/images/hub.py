"""Find model repositories on this machine, and fetch them when asked to.

A source is a folder, or ``owner/name`` on the Hugging Face Hub, with ``@revision`` to pin it.
Nothing is ever downloaded except by ``download_repository``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from dream_cad.exceptions import CheckpointError, DownloadError, InvalidConfigError
from dream_cad.settings import get_settings

_REPOSITORY = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)


def split_source(source: str) -> tuple[str, str | None]:
    """Split ``owner/name@revision`` into repository id and revision.

    Raises:
        InvalidConfigError: not of that form.
    """
    match = _REPOSITORY.fullmatch(source)
    if match is None or ".." in source:
        raise InvalidConfigError(
            f"{source!r} is neither an existing folder nor a repository id.",
            hint="Give a folder, or owner/name, or owner/name@revision.",
        )
    return match["id"], match["revision"]


def find_repository(source: str | Path, *, required: str) -> Path | None:
    """Return the local folder of a source if it holds the file ``required``, else None.

    Looked up in this order: the source itself as a folder, DREAM_CAD_MODEL_PATH/<name>, the
    downloads below DREAM_CAD_CACHE_DIR, and the user's own Hugging Face cache.

    Raises:
        CheckpointError: the source is a folder, but without that file.
        InvalidConfigError: neither a folder nor a repository id.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / required).is_file():
            raise CheckpointError(
                f"The folder {str(folder)!r} holds no {required}.",
                hint="Name the folder of a complete checkpoint.",
            )
        return folder
    repository, revision = split_source(str(source))
    model_path = get_settings().model_path
    if model_path is not None:
        candidate = model_path / repository.rpartition("/")[2]
        if (candidate / required).is_file():
            return candidate
    return _find_in_caches(repository, revision, required)


def _find_in_caches(repository: str, revision: str | None, required: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for cache_dir in (_download_folder(), None):  # None: the user's own cache
        found = try_to_load_from_cache(repository, required, cache_dir=cache_dir, revision=revision)
        if isinstance(found, str):
            return Path(found.removesuffix(required))
    return None


def list_repository(source: str, *, patterns: Sequence[str]) -> dict[str, int]:
    """Ask the hub which files ``download_repository`` would fetch: name to size in bytes.

    Raises:
        DownloadError: no network, no such repository, or access refused.
        InvalidConfigError: not a repository id.
    """
    from huggingface_hub import HfApi

    repository, revision = split_source(source)
    with _download_errors(source):
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or []}
    return {name: size for name, size in sizes.items() if any(fnmatch(name, p) for p in patterns)}


def download_repository(
    source: str, *, patterns: Sequence[str], folder: Path | None = None
) -> Path:
    """Fetch the files of a repository that match ``patterns``; resumes after an interruption.

    Args:
        source: the repository.
        patterns: of the names of its files.
        folder: where to put the files; below DREAM_CAD_CACHE_DIR when None.

    Returns:
        The folder that holds them.

    Raises:
        DownloadError: no network, no such repository, access refused, or no space left.
        InvalidConfigError: not a repository id.
    """
    from huggingface_hub import snapshot_download

    repository, revision = split_source(source)
    with _download_errors(source):
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                cache_dir=_download_folder(),
                local_dir=folder,
                allow_patterns=list(patterns),
            )
        )


@contextmanager
def _download_errors(source: str) -> Iterator[None]:
    """Turn what the hub's client raises into DownloadError."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
        raise DownloadError(
            f"The repository {source!r} could not be fetched: {error}",
            hint="Check the network and the name; some repositories need `hf auth login`.",
        ) from error


def _download_folder() -> Path:
    return get_settings().cache_dir / "hub"
