"""Fetch published checkpoints: resumable, verified, and never half in place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import constants, get_token, hf_hub_url
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential
from tenacity.wait import wait_base

from dream_cad.exceptions import (
    DownloadError,
    InvalidConfigError,
    ModelNotFoundError,
    ModelUnavailableError,
    StorageError,
)
from dream_cad.models.weights import (
    COMMIT,
    PUBLISHED,
    REVISIONS_FILE,
    PublishedCheckpoint,
    PublishedFile,
    file_sha256,
    published_folders,
    read_revisions,
)

OnBytes = Callable[[str, int], None]
"""Called with (file name, bytes of it that are on disk)."""

_ATTEMPTS = 5
_TIMEOUT = httpx.Timeout(30.0, connect=15.0)
_SHA256_DIGITS = 64
_LICENSE_FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt")


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub describes it: size in bytes, and SHA-256 where it or we know one."""

    name: str
    url: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class LicenseFile:
    """The licence that lies in a repository: file name and text."""

    name: str
    text: str

    def write(self, folder: Path) -> None:
        """Put it beside what it is about.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            (folder / self.name).write_text(self.text, encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{folder} cannot be written: {error.strerror}.") from error


@dataclass(frozen=True)
class DownloadPlan:
    """What fetching a checkpoint takes.

    Attributes:
        name: the model.
        published: the checkpoint.
        folder: where its files go.
        files: all of them.
        missing: those that are not in ``folder`` yet.
        revisions: the commit of each repository.
    """

    name: str
    published: PublishedCheckpoint
    folder: Path
    files: tuple[RemoteFile, ...]
    missing: tuple[RemoteFile, ...]
    revisions: Mapping[str, str]

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes still to be fetched; parts that an interrupted run left count as fetched."""
        return sum(file.size - _part_size(self.folder, file) for file in self.missing)


class CheckpointDownloader:
    """Fetches the files of one checkpoint after the other.

    Args:
        endpoint: base URL of the hub; that of huggingface_hub (``HF_ENDPOINT``) when None.
        wait: pause between two attempts of a file.
    """

    def __init__(self, endpoint: str | None = None, *, wait: wait_base | None = None) -> None:
        self._endpoint = endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
        self._wait = wait or wait_exponential(multiplier=1, max=30)
        token = get_token()
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=_TIMEOUT,
            follow_redirects=True,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def plan(self, name: str, folder: Path | None = None, *, latest: bool = False) -> DownloadPlan:
        """Ask the hub for sizes, and look what is there already.

        Args:
            name: a model with a published checkpoint.
            folder: where to put the files; the last of ``published_folders`` when None.
            latest: take the newest commit of repositories without a pinned one.

        Raises:
            ModelNotFoundError: there is no published checkpoint of that name.
            InvalidConfigError: no commit is pinned, and the newest was not asked for.
            ModelUnavailableError: its licence has to be accepted on the hub first.
            DownloadError: the hub cannot be reached or does not have the files.
        """
        published = PUBLISHED.get(name)
        if published is None:
            raise ModelNotFoundError(
                f"There is no checkpoint of {name!r} to fetch in this version.",
                hint=f"Models: {', '.join(PUBLISHED)}.",
                details={"model": name, "allowed": list(PUBLISHED)},
            )
        target = folder or published_folders(name)[-1]
        revisions = self._revisions(published, target, latest=latest)
        files = tuple(self._describe(published, file, revisions) for file in published.files)
        missing = tuple(file for file in files if not _is_present(target, file))
        return DownloadPlan(name, published, target, files, missing, revisions)

    def read_license(self, repo_id: str, revision: str | None) -> LicenseFile | None:
        """Return the licence file of a repository; None if it has none of the usual names.

        Raises:
            ModelUnavailableError: it has to be accepted on the hub before it can be read there.
            DownloadError: the hub cannot be reached.
        """
        for name in _LICENSE_FILES:
            url = hf_hub_url(repo_id, name, revision=revision, endpoint=self._endpoint)
            response = self._send("GET", url)
            if response.status_code != httpx.codes.NOT_FOUND:
                _raise_for_status(response, name)
                return LicenseFile(name, response.text)
        return None

    def fetch(self, plan: DownloadPlan, on_bytes: OnBytes) -> None:
        """Fetch the missing files; an interrupted one goes on where it stopped.

        A file appears under its name only when its size and SHA-256 are right.

        Raises:
            StorageError: not enough disk space, or a file cannot be written.
            DownloadError: a file could not be fetched, or is not what was published.
        """
        _require_space(plan)
        if None in plan.published.revisions().values():
            _note_revisions(plan)
        for file in plan.missing:
            self._fetch_file(plan.folder, file, on_bytes)

    def _revisions(
        self, published: PublishedCheckpoint, folder: Path, *, latest: bool
    ) -> dict[str, str]:
        """Return the commit of each repository: pinned, else as fetched before, else the newest."""
        found = {} if latest else read_revisions(folder)
        for repository, pinned in published.revisions().items():
            if pinned is not None:
                found[repository] = pinned
            elif latest:
                found[repository] = self._newest(repository, published)
            elif repository not in found:
                raise InvalidConfigError(
                    f"This version knows no commit of {repository} to pin.",
                    hint="--latest takes the newest and keeps to it. Only tensors are read, and "
                    "each is checked by name and shape; no code of the repository is run.",
                )
        return found

    def _newest(self, repository: str, published: PublishedCheckpoint) -> str:
        """Return the commit that the repository's main branch is at."""
        origins = [published.origin_of(file) for file in published.files]
        name = next(origin.name for origin in origins if origin.repo_id == repository)
        url = hf_hub_url(repository, name, revision="main", endpoint=self._endpoint)
        headers = self._request_head(url)
        commit = str(headers.get(constants.HUGGINGFACE_HEADER_X_REPO_COMMIT, ""))
        if not COMMIT.fullmatch(commit):
            raise DownloadError(f"The hub names no commit of {repository}, but {commit!r}.")
        return commit

    def _describe(
        self, published: PublishedCheckpoint, file: PublishedFile, revisions: Mapping[str, str]
    ) -> RemoteFile:
        origin = published.origin_of(file)
        revision = revisions[origin.repo_id]
        url = hf_hub_url(origin.repo_id, origin.name, revision=revision, endpoint=self._endpoint)
        headers = self._request_head(url)
        size = headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_SIZE)
        size = size or headers.get("Content-Length")
        if size is None or not size.isdigit() or (file.size or int(size)) != int(size):
            raise DownloadError(
                f"The hub gives {origin.name} of {origin.repo_id} a size of {size} bytes, "
                f"expected {file.size or 'a number'}."
            )
        return RemoteFile(file.name, url, int(size), file.sha256 or _sha256_of(headers))

    def _request_head(self, url: str) -> httpx.Headers:
        """Return the headers that describe a file.

        For a large file they come with the redirect to the storage, which knows less of it; other
        redirects (a repository that was renamed) are followed.
        """
        identity = {"Accept-Encoding": "identity"}
        response = self._request("HEAD", url, headers=identity, follow_redirects=False)
        if (
            response.is_redirect
            and constants.HUGGINGFACE_HEADER_X_LINKED_SIZE not in response.headers
        ):
            response = self._request("HEAD", url, headers=identity, follow_redirects=True)
        return response.headers

    def _fetch_file(self, folder: Path, file: RemoteFile, on_bytes: OnBytes) -> None:
        part = _part_path(folder, file)
        attempts = Retrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=self._wait,
            retry=retry_if_exception_type(httpx.TransportError),
            reraise=True,
        )
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            attempts(self._continue_part, file, part, on_bytes)
            _verify(file, part)
            part.replace(folder / file.name)
        except httpx.HTTPError as error:
            raise DownloadError(
                f"{file.name} could not be fetched: {error or type(error).__name__}.",
                hint="Run the command again; it goes on where it stopped.",
            ) from error
        except OSError as error:
            raise StorageError(f"{part} could not be written: {error.strerror}.") from error

    def _continue_part(self, file: RemoteFile, part: Path, on_bytes: OnBytes) -> None:
        done = part.stat().st_size if part.exists() else 0
        if done > file.size:
            part.unlink()
            done = 0
        if done == file.size:
            on_bytes(file.name, done)
            return
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
        with self._client.stream("GET", file.url, headers=headers) as response:
            _raise_for_status(response, file.name)
            is_continuation = response.status_code == httpx.codes.PARTIAL_CONTENT
            done = done if is_continuation else 0
            with part.open("ab" if is_continuation else "wb") as stream:
                for block in response.iter_bytes():  # as it arrives, so that a break loses nothing
                    stream.write(block)
                    done += len(block)
                    on_bytes(file.name, done)

    def _request(self, method: str, url: str, **request: Any) -> httpx.Response:
        response = self._send(method, url, **request)
        _raise_for_status(response, url.rpartition("/")[2])
        return response

    def _send(self, method: str, url: str, **request: Any) -> httpx.Response:
        try:
            return self._client.request(method, url, **request)
        except httpx.HTTPError as error:
            raise DownloadError(
                f"The hub at {self._endpoint} cannot be reached: {error or type(error).__name__}.",
                hint="Check the network, or put the files where DREAM_CAD_MODEL_PATH points.",
            ) from error


def _raise_for_status(response: httpx.Response, name: str) -> None:
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise ModelUnavailableError(
            f"The hub does not give out {name} without permission.",
            hint="Accept the licence on the model's page and set HF_TOKEN.",
        )
    if response.is_error:
        raise DownloadError(f"The hub answered {response.status_code} for {name}.")


def _verify(file: RemoteFile, part: Path) -> None:
    size = part.stat().st_size
    if size == file.size and file.sha256 in (None, file_sha256(part)):
        return
    part.unlink()
    raise DownloadError(
        f"{file.name} is not what was published: its "
        f"{'SHA-256' if size == file.size else 'size'} differs. It was deleted.",
        hint="Run the command again.",
    )


def _is_present(folder: Path, file: RemoteFile) -> bool:
    path = folder / file.name
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return file.sha256 in (None, file_sha256(path))


def _require_space(plan: DownloadPlan) -> None:
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(plan.folder).free
    except OSError as error:
        raise StorageError(f"{plan.folder} cannot be written: {error.strerror}.") from error
    if free < plan.bytes_to_fetch:
        raise StorageError(
            f"{plan.folder} has {free / 1e9:.1f} GB free; {plan.bytes_to_fetch / 1e9:.1f} GB "
            "are needed.",
            hint="Choose another folder with --to.",
        )


def _note_revisions(plan: DownloadPlan) -> None:
    """Keep the commits beside the files, for receipts and for the next time."""
    path = plan.folder / REVISIONS_FILE
    try:
        path.write_text(json.dumps(dict(plan.revisions), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror}.") from error


def _sha256_of(headers: httpx.Headers) -> str | None:
    """The hub's tag of a large file is its SHA-256; small files have another kind of tag."""
    tag = headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_ETAG) or headers.get("ETag") or ""
    digest = tag.removeprefix("W/").strip('"')
    is_sha256 = len(digest) == _SHA256_DIGITS and all(c in "0123456789abcdef" for c in digest)
    return digest if is_sha256 else None


def _part_path(folder: Path, file: RemoteFile) -> Path:
    return folder / f"{file.name}.part"


def _part_size(folder: Path, file: RemoteFile) -> int:
    part = _part_path(folder, file)
    return min(part.stat().st_size, file.size) if part.exists() else 0
