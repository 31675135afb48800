from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.serve.schema import ServeDeploySchema

from deployments.args import AppArgs
from dream_cad.models.built_in import BUILT_IN_CAPABILITIES
from dream_cad.models.registry import ModelRegistry
from dream_cad.placement import gpu_share

ROOT = Path(__file__).parents[3]
RAY_SCHEMA = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"


def read(path: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / path).read_text()))


def check_schema(cluster: dict[str, Any]) -> None:
    jsonschema.validate(cluster, json.loads(RAY_SCHEMA.read_text()))


@pytest.mark.parametrize("path", ["cluster.yaml", "cluster-onprem.yaml"])
def test_launcher_files_follow_rays_own_schema(path: str) -> None:
    cluster = read(path)
    check_schema(cluster)
    with pytest.raises(jsonschema.ValidationError):
        check_schema({**cluster, "max_worker": 3})


def test_the_cloud_cluster_adds_up() -> None:
    cluster = read("cluster.yaml")
    types = cluster["available_node_types"]
    assert cluster["head_node_type"] in types
    assert sum(kind["max_workers"] for kind in types.values()) <= cluster["max_workers"]
    assert sum(kind["resources"].get("GPU", 0) > 0 for kind in types.values()) >= 2


def check_serve_config(config: dict[str, Any]) -> None:
    deployed = ServeDeploySchema.model_validate(config)
    for application in deployed.applications:
        args = AppArgs.model_validate(application.args)
        for model in args.models:
            ModelRegistry().get_entry(model.name)


def test_the_served_application_follows_serves_schema_and_ours() -> None:
    check_serve_config(read("serve_config.yaml"))
    service = read("deployments/kuberay/rayservice.yaml")
    check_serve_config(yaml.safe_load(service["spec"]["serveConfigV2"]))


@pytest.mark.parametrize(
    ("path", "kind", "cluster_key"),
    [("rayservice", "RayService", "rayClusterConfig"), ("rayjob", "RayJob", "rayClusterSpec")],
)
def test_kuberay_pods_ask_for_what_their_image_needs(
    path: str, kind: str, cluster_key: str
) -> None:
    manifest = read(f"deployments/kuberay/{path}.yaml")
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", kind)
    cluster = manifest["spec"][cluster_key]
    assert cluster["rayVersion"] == ray.__version__
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert head["image"] == "dream-cad:cpu"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        (worker,) = group["template"]["spec"]["containers"]
        assert worker["image"] == "dream-cad:cuda"
        assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1


@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_images_copy_only_what_is_there(variant: str) -> None:
    lines = (ROOT / f"deployments/docker/Dockerfile.{variant}").read_text().splitlines()
    copies = [line.split()[1:-1] for line in lines if line.startswith("COPY ")]
    assert copies
    for name in (name for names in copies for name in names):
        assert (ROOT / name).exists(), name


GPUS = {"L4, A10 (24 GB)": 24, "A100 (40 GB)": 40, "L40S (48 GB)": 48, "A100, H100 (80 GB)": 80}


def sizing_table() -> str:
    """Return the table of docs/cluster.md: shares, and how many replicas one GPU holds."""
    lines = ["| model | needs | " + " | ".join(GPUS) + " |", "|---" * (len(GPUS) + 2) + "|"]
    for name, row in BUILT_IN_CAPABILITIES.items():
        shares = [gpu_share(row.min_vram_gb, gpu_gb) for gpu_gb in GPUS.values()]
        cells = [f"{share:.2f} (x {math.floor(1 / share + 1e-9)})" for share in shares]
        lines.append(f"| {name} | {row.min_vram_gb:g} GB | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_sizing_table_follows_from_the_capabilities() -> None:
    assert sizing_table() in (ROOT / "docs" / "cluster.md").read_text()
