"""Results in the artifact store: what the processor publishes and ``GenerationJob.result`` reads.

The layout is that of the server's finisher, so that both can read each other's results.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from dream_cad.artifacts import ArtifactStore
from dream_cad.exceptions import StorageError
from dream_cad.queue.entry import GENERATION_RESULT, resolve
from dream_cad.queue.jobs import GenerationJob
from dream_cad.settings import get_settings

MESH_FILE, RECEIPT_FILE = "mesh.glb", "result.json"


def default_artifacts_root() -> str:
    """Return where servers put results by default: ``jobs`` in DREAM_CAD_OUTPUT_DIR."""
    return str(get_settings().output_dir.absolute() / "jobs")


def publish_result(artifacts: ArtifactStore, job: GenerationJob, result: Any) -> str:
    """Publish mesh and receipt of a GenerationResult under a key of this attempt; returns it.

    Raises:
        StorageError: disk full, no permission; nothing is visible then.
    """
    from dream_cad.mesh.export import mesh_bytes

    receipt = {
        "job_id": job.id,
        "prompt": job.prompt,
        "options": job.config,
        "model": result.model_name,
        "generation_time_s": result.generation_time,
        "metadata": result.metadata,
    }
    files = {
        MESH_FILE: mesh_bytes(result.to_mesh(), "glb"),
        RECEIPT_FILE: json.dumps(receipt, indent=1, default=str).encode(),
    }
    return artifacts.publish(f"{job.id}-{job.attempts}", files)


def load_result(job: GenerationJob, artifacts: ArtifactStore | None = None) -> Any:
    """Read the GenerationResult of a completed job.

    Raises:
        StorageError: the artifact has expired or cannot be read.
    """
    from dream_cad.mesh.export import load_mesh

    if job.artifact_uri is None:
        raise StorageError(f"The result of job {job.id} has expired.", hint="Run the job again.")
    store = artifacts or ArtifactStore(default_artifacts_root())
    receipt = json.loads(store.read(job.artifact_uri, RECEIPT_FILE))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MESH_FILE
        path.write_bytes(store.read(job.artifact_uri, MESH_FILE))
        mesh = load_mesh(path)
    return resolve(GENERATION_RESULT)(
        vertices=mesh.vertices,
        faces=mesh.faces,
        vertex_colors=mesh.vertex_colors,
        uv_coords=mesh.uv_coords,
        texture=mesh.texture,
        materials=mesh.materials,
        metadata=receipt.get("metadata", {}),
        generation_time=receipt.get("generation_time_s", 0.0),
        model_name=receipt.get("model", job.model_name),
    )
