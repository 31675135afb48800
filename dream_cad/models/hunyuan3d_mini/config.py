"""Hyper-parameters of a Hunyuan3D-2mini variant and the published ``config.yaml`` layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml

from dream_cad.exceptions import CheckpointError
from dream_cad.models.hunyuan3d_mini.conditioner import ConditionerConfig
from dream_cad.models.hunyuan3d_mini.dit import DiTConfig
from dream_cad.models.hunyuan3d_mini.schedule import ScheduleConfig, SchedulerName
from dream_cad.models.hunyuan3d_mini.shape_vae import ShapeVAEConfig
from dream_cad.nn.dinov2 import Dinov2Config

Variant = Literal["standard", "fast", "turbo"]

# Keys that upstream reads and whose value cannot change what our implementation computes.
_UNUSED = {
    "axes_dim", "theta", "include_pi", "attention_probs_dropout_prob", "drop_path_rate",
    "hidden_act", "hidden_dropout_prob", "initializer_range", "layerscale_value", "model_type",
    "num_channels", "torch_dtype", "attn_implementation",
}  # fmt: skip
_SCHEDULERS: dict[str, SchedulerName] = {
    "FlowMatchEulerDiscreteScheduler": "flow_match",
    "ConsistencyFlowMatchEulerDiscreteScheduler": "consistency",
}

ConfigType = TypeVar("ConfigType")


@dataclass(frozen=True)
class Hunyuan3DConfig:
    """Sizes of one variant; the defaults are those of the published standard mini.

    Attributes:
        dit: the flow-matching transformer.
        vae: the ShapeVAE.
        conditioner: the image encoder.
        schedule: the time steps.
        image_size: side in pixels that pictures are prepared at.
        border_ratio: share of the prepared picture that stays free.
        num_inference_steps: denoising steps unless asked otherwise.
        octree_resolution: cells a side of the volume unless asked otherwise.
    """

    dit: DiTConfig = field(default_factory=DiTConfig)
    vae: ShapeVAEConfig = field(default_factory=ShapeVAEConfig)
    conditioner: ConditionerConfig = field(default_factory=ConditionerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    image_size: int = 512
    border_ratio: float = 0.15
    num_inference_steps: int = 50
    octree_resolution: int = 384

    @classmethod
    def published(cls, variant: Variant = "standard") -> Self:
        """Sizes of ``tencent/Hunyuan3D-2mini``.

        The sizes of ``fast`` are not known for certain: its own config.yaml decides.
        """
        config = cls()
        if variant == "standard":
            return config
        guided = replace(config, dit=replace(config.dit, guidance_embed=True))
        if variant == "fast":
            return guided
        return replace(
            guided,
            vae=replace(config.vae, num_latents=3072),
            conditioner=replace(config.conditioner, image_size=1022),
            schedule=ScheduleConfig("consistency"),
            image_size=1022,
            num_inference_steps=5,
        )

    @classmethod
    def tiny(cls, variant: Variant = "standard") -> Self:
        """Sizes for tests: a forward pass takes milliseconds."""
        dinov2 = Dinov2Config(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=70
        )
        return cls(
            dit=DiTConfig(
                in_channels=8,
                context_in_dim=32,
                hidden_size=32,
                num_heads=2,
                depth=1,
                depth_single_blocks=1,
                guidance_embed=variant != "standard",
            ),
            vae=ShapeVAEConfig(
                num_latents=24, embed_dim=8, width=32, heads=2, num_decoder_layers=1
            ),
            conditioner=ConditionerConfig(dinov2, image_size=70),
            schedule=ScheduleConfig("consistency" if variant == "turbo" else "flow_match"),
            image_size=70,
            num_inference_steps=3,
            octree_resolution=32,
        )

    def to_mapping(self) -> dict[str, Any]:
        """Return the sections of ``config.yaml``; ``from_mapping`` reads them back."""
        schedulers = {name: target for target, name in _SCHEDULERS.items()}
        times = asdict(self.schedule)
        encoder = {
            "type": "DinoImageEncoder",
            "kwargs": {
                "config": asdict(self.conditioner.dinov2),
                "image_size": self.conditioner.image_size,
            },
        }
        sections = {
            "model": ("Hunyuan3DDiT", asdict(self.dit)),
            "vae": ("ShapeVAE", asdict(self.vae)),
            "conditioner": ("SingleImageEncoder", {"main_image_encoder": encoder}),
            "scheduler": (schedulers[times.pop("scheduler")], times),
            "image_processor": (
                "ImageProcessorV2",
                {"size": self.image_size, "border_ratio": self.border_ratio},
            ),
        }
        return {
            name: {"target": target, "params": params}
            for name, (target, params) in sections.items()
        }

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read a published ``config.yaml``.

        Raises:
            CheckpointError: it is missing, damaged, or asks for what is not implemented.
        """
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}.") from error
        if not isinstance(data, dict):
            raise CheckpointError(f"{path} holds no mapping of sections.")
        return cls.from_mapping(data)

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Self:
        """Read the sections model, vae, conditioner, scheduler and image_processor.

        Raises:
            CheckpointError: a section is missing, or holds an unknown or ill-typed value.
        """
        encoder = _params(data, "conditioner").get("main_image_encoder", {})
        kwargs = encoder.get("kwargs", {}) if isinstance(encoder, dict) else {}
        processor = _params(data, "image_processor")
        schedule = _schedule(data)
        return cls(
            dit=parse_section(DiTConfig, "model", _params(data, "model")),
            vae=parse_section(ShapeVAEConfig, "vae", _params(data, "vae")),
            conditioner=ConditionerConfig(
                parse_section(Dinov2Config, "conditioner", kwargs.get("config", {})),
                image_size=_positive("conditioner", "image_size", kwargs.get("image_size", 518)),
            ),
            schedule=schedule,
            num_inference_steps=5 if schedule.scheduler == "consistency" else 50,
            image_size=_positive("image_processor", "size", processor.get("size", 512)),
            border_ratio=float(processor.get("border_ratio", 0.15)),
        )


def parse_section(kind: type[ConfigType], section: str, params: Mapping[str, Any]) -> ConfigType:
    """Return the dataclass of a section's parameters.

    Raises:
        CheckpointError: an unknown key, or a value of another type than the default's.
    """
    defaults = {f.name: getattr(kind(), f.name) for f in fields(kind)}  # type: ignore[arg-type]
    unknown = params.keys() - defaults.keys() - _UNUSED
    if unknown:
        raise CheckpointError(
            f"config.yaml: section {section} holds unknown {', '.join(sorted(unknown))}.",
            hint="The file may belong to another model or a newer version of it.",
        )
    if params.get("include_pi"):
        raise CheckpointError(f"config.yaml: section {section}: include_pi is not implemented.")
    known = {key: value for key, value in params.items() if key in defaults}
    for key, value in known.items():
        if isinstance(defaults[key], float) and isinstance(value, int):
            known[key] = float(value)
        elif type(value) is not type(defaults[key]):
            raise CheckpointError(
                f"config.yaml: {section}.{key} is {value!r}; "
                f"{type(defaults[key]).__name__} was expected."
            )
    return kind(**known)


def _params(data: Mapping[str, Any], section: str) -> dict[str, Any]:
    found = data.get(section)
    params = found.get("params", {}) if isinstance(found, dict) else None
    if not isinstance(params, dict):
        raise CheckpointError(f"config.yaml has no section {section} with params.")
    return params


def _positive(section: str, key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 4096:
        raise CheckpointError(f"config.yaml: {section}.{key} is {value!r}; 1..4096 was expected.")
    return value


def _schedule(data: Mapping[str, Any]) -> ScheduleConfig:
    params = _params(data, "scheduler")
    target = str(data["scheduler"].get("target", "")).rpartition(".")[2]
    if target not in _SCHEDULERS:
        raise CheckpointError(
            f"config.yaml: the scheduler {target!r} is not known.",
            hint=f"Known: {', '.join(_SCHEDULERS)}.",
        )
    known = {key: value for key, value in params.items() if value is not None}
    return replace(parse_section(ScheduleConfig, "scheduler", known), scheduler=_SCHEDULERS[target])
