"""Output profiles, an option of jobs: checked at the door, made by the finisher, sent as a zip."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from deployments.messages import PACKAGE_FILE, Finished, FinishRequest
from deployments.stages import MeshFinisher
from dream_cad.artifacts import ArtifactStore
from tests.cluster.echo_model import EchoModel
from tests.unit.deployments.http.conftest import Stand
from tests.unit.deployments.http.test_jobs_api import problem

OPTIONS = {"profile": "print-fdm", "profile_size": 40}


async def finish(folder: Path, **options: object) -> ArtifactStore:
    result = EchoModel().generate_from_text("a red cube")
    receipt = {"prompt": "a red cube", "options": options}
    request = FinishRequest("job", "job-1", result, None, dict(options), receipt)
    outcome = await MeshFinisher(str(folder), 1, 32).finish(request)
    assert isinstance(outcome, Finished)
    assert ("profile_s" in outcome.timings) is ("profile" in options)
    return ArtifactStore(folder)


async def test_the_finisher_publishes_the_package(tmp_path: Path) -> None:
    store = await finish(tmp_path, **OPTIONS)
    with zipfile.ZipFile(io.BytesIO(store.read("job-1", PACKAGE_FILE))) as archive:
        assert archive.namelist()[:2] == ["red-cube.stl", "red-cube.3mf"]
        manifest = json.loads(archive.read("manifest.json"))
    assert max(manifest["size"]) == pytest.approx(40)
    assert manifest["receipt"]["job_id"] == "job"
    plain = await finish(tmp_path / "plain")
    assert PACKAGE_FILE not in plain.files("job-1")


async def test_a_job_with_a_profile_answers_with_its_zip(stand: Stand, tmp_path: Path) -> None:
    job_id = await stand.submit(options=OPTIONS)
    job = stand.complete()
    key = f"{job.id}-{job.attempts}"
    own = {name: stand.artifacts.read(key, name) for name in stand.artifacts.files(key)}
    package = (await finish(tmp_path / "made", **OPTIONS)).read("job-1", PACKAGE_FILE)
    stand.artifacts.publish(key, {**own, PACKAGE_FILE: package})
    url = f"/v1/jobs/{job_id}/result"
    for asked in (url, f"{url}?format=zip", f"/v1/jobs/{job_id}/files/{PACKAGE_FILE}"):
        answer = await stand.client.get(asked)
        assert answer.headers["content-type"] == "application/zip"
        assert answer.headers["content-disposition"].endswith('.zip"')
        assert answer.content == package
    assert (await stand.client.get(f"{url}?format=glb")).content[:4] == b"glTF"


async def test_without_a_profile_there_is_no_zip(stand: Stand) -> None:
    job_id = await stand.submit()
    stand.complete()
    answer = await stand.client.get(f"/v1/jobs/{job_id}/result?format=zip")
    assert problem(answer, 404)["type"] == "result-file-not-found"
    assert (await stand.client.get(f"/v1/jobs/{job_id}/result")).content[:4] == b"glTF"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"profile": "godot"}, "unreal-hero"),
        ({"profile": "web", "profile_size": 0}, "profile_size"),
        ({"profile": "web", "profile_size": 1e9}, "profile_size"),
        ({"profile": "web", "profile_name": ""}, "profile_name"),
        ({"profile_size": 2}, "need a profile"),
    ],
)
async def test_wrong_profiles_are_refused(
    stand: Stand, options: dict[str, object], why: str
) -> None:
    answer = await stand.client.post("/v1/jobs", json={"prompt": "a cube", "options": options})
    assert why in json.dumps(problem(answer, 422))


async def test_models_tell_of_the_profiles(stand: Stand) -> None:
    models = (await stand.client.get("/v1/models")).json()["models"]
    (echo,) = [model for model in models if model["name"] == "echo"]
    schema = json.dumps(echo["options_schema"]["properties"]["profile"])
    assert all(name in schema for name in ("unity-mobile-prop", "unreal-hero", "web", "print-fdm"))
