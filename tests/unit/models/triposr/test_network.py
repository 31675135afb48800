from __future__ import annotations

import pytest
import torch

from dream_cad.models.triposr.config import TripoSRConfig
from dream_cad.models.triposr.network import IMAGE_MEAN, TripoSRNetwork

CONFIG = TripoSRConfig.tiny()


@pytest.fixture
def network() -> TripoSRNetwork:
    torch.manual_seed(0)
    return TripoSRNetwork(CONFIG).eval()


def images(batch: int = 2) -> torch.Tensor:
    side = CONFIG.cond_image_size
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_shapes(network: TripoSRNetwork) -> None:
    tokens = network.encode_image(images())
    assert tokens.shape == (2, 17, 24)
    codes = network.scene_codes(images())
    side = CONFIG.plane_size * CONFIG.upsample_scale
    assert codes.shape == (2, 3, CONFIG.out_channels, side, side)
    raw, color = network.query(codes, torch.zeros(2, 7, 3))
    assert raw.shape == (2, 7)
    assert color.shape == (2, 7, 3)
    assert ((color > 0) & (color < 1)).all()


@torch.no_grad()
def test_batch_equals_single_images(network: TripoSRNetwork) -> None:
    both = network.scene_codes(images())
    single = torch.cat([network.scene_codes(image[None]) for image in images()])
    torch.testing.assert_close(both, single, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_images_matter(network: TripoSRNetwork) -> None:
    codes = network.scene_codes(images())
    assert (codes[0] - codes[1]).abs().max() > 1e-4


def test_every_parameter_but_the_pooler_learns(network: TripoSRNetwork) -> None:
    network.train()
    raw, color = network(images(), torch.rand(2, 50, 3) - 0.5)
    (raw.square().sum() + color.square().sum()).backward()
    without = {
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    }
    # A key's bias shifts all scores of a query alike, which softmax ignores.
    biases = {name for name in without if name.endswith("attention.key.bias")}
    prefix = "image_tokenizer.model.pooler.dense."
    assert without - biases == {f"{prefix}weight", f"{prefix}bias"}


@torch.no_grad()
def test_prefix_does_not_change_the_result(network: TripoSRNetwork) -> None:
    before = network.scene_codes(images())
    network.precompute_prefix()
    torch.testing.assert_close(network.scene_codes(images()), before, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("change", ["train", "cast", "load"])
@torch.no_grad()
def test_prefix_is_forgotten_when_weights_change(network: TripoSRNetwork, change: str) -> None:
    network.precompute_prefix()
    stale = network.scene_codes(images())
    if change == "train":
        network.train()
        network.tokenizer.embeddings.add_(1.0)
        network.eval()
    elif change == "cast":
        network.double()
    else:
        state = {key: value + 0.1 for key, value in network.state_dict().items()}
        network.load_state_dict(state)
    assert network._prefix is None
    if change != "cast":
        assert not torch.allclose(network.scene_codes(images()), stale)


def test_constants_are_no_part_of_the_checkpoint(network: TripoSRNetwork) -> None:
    assert not [key for key in network.state_dict() if "image_mean" in key or "image_std" in key]
    with torch.device("meta"):
        built = TripoSRNetwork(CONFIG)
    built.image_tokenizer.reset_constants(torch.device("cpu"))
    assert built.image_tokenizer.image_mean.flatten().tolist() == pytest.approx(IMAGE_MEAN)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_encoder_stays_close(network: TripoSRNetwork, dtype: torch.dtype) -> None:
    exact = network.scene_codes(images())
    network.to(dtype)
    network.decoder.float()
    codes = network.scene_codes(images())
    assert codes.dtype == torch.float32
    assert (codes - exact).std() / exact.std() < 0.05
    raw, _ = network.query(codes, torch.zeros(2, 3, 3))
    assert raw.dtype == torch.float32


@torch.no_grad()
def test_density_is_confined_to_the_radius(network: TripoSRNetwork) -> None:
    """Far outside, all features are zero and the field is a constant."""
    codes = network.scene_codes(images(1))
    far = CONFIG.radius * torch.tensor([[[2.0, 2.0, 2.0], [-3.0, 2.0, 5.0]]])
    raw, _ = network.query(codes, far)
    assert raw[0, 0] == raw[0, 1]
