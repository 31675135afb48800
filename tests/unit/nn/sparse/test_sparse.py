"""Each fast path against its plain twin; maps and refusals."""

from __future__ import annotations

import pytest
import torch

from dream_cad.exceptions import ShapeError
from dream_cad.nn.sparse.conv import SparseConv3d, SparseGroupNorm, dense_masked_conv
from dream_cad.nn.sparse.groups import bucket_groups, grouped_attention, masked_attention
from dream_cad.nn.sparse.resample import Halving, subdivide
from dream_cad.nn.sparse.tensor import SparseTensor, VoxelSet


def random_tensor(side: int, share: float, channels: int, seed: int = 0) -> SparseTensor:
    generator = torch.Generator().manual_seed(seed)
    occupied = torch.rand(2, side, side, side, generator=generator) < share
    voxels = VoxelSet(occupied.nonzero())
    return SparseTensor(voxels, torch.randn(len(voxels), channels, generator=generator))


@pytest.mark.parametrize("share", [0.05, 0.4, 1.0])
@torch.no_grad()
def test_convolution_equals_masked_dense_one(share: float) -> None:
    x = random_tensor(7, share, 5)
    conv = SparseConv3d(5, 6)
    want = dense_masked_conv(x, conv.conv.weight, conv.conv.bias)
    torch.testing.assert_close(conv(x).feats, want, rtol=1e-4, atol=1e-5)


def test_convolution_ignores_other_items() -> None:
    coords = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    x = SparseTensor(VoxelSet(coords), torch.tensor([[1.0], [5.0]]))
    pairs = sum(len(rows) for rows, _ in x.voxels.neighbours)
    assert pairs == 2  # each voxel sees itself only


@pytest.mark.parametrize(("window", "shift"), [(0, 0), (4, 0), (4, 2), (8, 4)])
def test_grouped_attention_equals_masked_one(window: int, shift: int) -> None:
    voxels = random_tensor(9, 0.2, 1).voxels
    q, k, v = torch.randn(3, len(voxels), 2, 8, generator=torch.Generator().manual_seed(1))
    got = grouped_attention(q, k, v, voxels.buckets(window, shift))
    want = masked_attention(q, k, v, voxels.window_labels(window, shift))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_buckets_hold_every_row_once() -> None:
    labels = torch.randint(0, 90, (700,), generator=torch.Generator().manual_seed(2))
    rows = [b.rows.flatten() if b.mask is None else b.rows[b.mask] for b in bucket_groups(labels)]
    assert torch.equal(torch.cat(rows).sort().values, torch.arange(700))


def test_up_undoes_the_geometry_of_down() -> None:
    x = random_tensor(6, 0.3, 3)
    halving = Halving.of(x.voxels)
    constant = halving.up(halving.down(x))
    assert constant.voxels is x.voxels
    mean = halving.down(x.with_feats(torch.ones_like(x.feats))).feats
    counts = torch.bincount(halving.parent)
    torch.testing.assert_close(mean[:, 0], counts / (counts + 1))


def test_subdivision_covers_the_same_space() -> None:
    x = random_tensor(4, 0.3, 2)
    fine = subdivide(x)
    assert len(fine.voxels) == 8 * len(x.voxels)
    assert len(fine.voxels.coords.unique(dim=0)) == len(fine.voxels)
    assert torch.equal(Halving.of(fine.voxels).coarse.coords, x.voxels.coords)


def test_group_norm_of_items_is_independent() -> None:
    x = random_tensor(4, 0.4, 8)
    norm = SparseGroupNorm(4, 8)
    first = next(iter(x.voxels.items()))
    alone = SparseTensor(VoxelSet(x.voxels.coords[first]), x.feats[first])
    torch.testing.assert_close(norm(x).feats[first], norm(alone).feats)


def test_empty_set_passes_through() -> None:
    x = SparseTensor(VoxelSet(torch.zeros((0, 4), dtype=torch.long)), torch.zeros(0, 3))
    assert SparseConv3d(3, 2)(x).feats.shape == (0, 2)
    assert x.voxels.buckets(8, 4) == []


@pytest.mark.parametrize(
    "coords",
    [torch.zeros(3, 3, dtype=torch.long), torch.zeros(3, 4), torch.tensor([[1, 0, 0, 0], [0] * 4])],
)
def test_bad_coordinates_are_refused(coords: torch.Tensor) -> None:
    with pytest.raises(ShapeError):
        VoxelSet(coords)


def test_features_must_fit() -> None:
    voxels = VoxelSet(torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(ShapeError):
        SparseTensor(voxels, torch.zeros(2, 3))
