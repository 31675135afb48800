from __future__ import annotations

import pytest

from dream_cad.exceptions import InvalidConfigError
from jobs.batch.pools import Node, size_pools, with_actors


@pytest.mark.parametrize(
    ("gpus", "share", "actors"),
    [([1], 0.25, 4), ([2], 0.3, 6), ([4, 2], 1.0, 6), ([3, 3], 2.0, 2), ([1, 0], 0.5, 2)],
)
def test_every_gpu_is_filled_and_no_share_spans_two(
    gpus: list[int], share: float, actors: int
) -> None:
    pools = size_pools([Node(8, count) for count in gpus], share, None)
    assert (pools.model, pools.text) == (actors, 0)


def test_text_and_model_share_each_gpu() -> None:
    assert (pools := size_pools([Node(8, 2)], 0.2, 0.4)).text == 2
    assert pools.model == 6  # 0.4 + 3 x 0.2 on each


def test_where_both_do_not_fit_on_one_gpu_each_takes_its_own() -> None:
    pools = size_pools([Node(8, 3)], 0.7, 0.7)
    assert (pools.text, pools.model) == (1, 1)


def test_a_cluster_too_small_is_told() -> None:
    with pytest.raises(InvalidConfigError, match="cannot hold"):
        size_pools([Node(8, 1)], 0.7, 0.7)
    with pytest.raises(InvalidConfigError, match="2 GPU for the model"):
        size_pools([Node(8, 1), Node(8, 1)], 2.0, None)


@pytest.mark.parametrize("cpus", [1, 2, 4, 64])
@pytest.mark.parametrize("text_share", [None, 0.0])
def test_on_cpus_all_stages_fit_at_once(cpus: int, text_share: float | None) -> None:
    pools = size_pools([Node(cpus)], 0.0, text_share)
    used = (pools.model + pools.text) * pools.model_cpus + pools.finisher_cpus
    assert pools.model >= 1
    assert used <= cpus


@pytest.mark.parametrize("actors", [1, 2, 3, 8])
@pytest.mark.parametrize("text_share", [None, 0.0])
def test_actors_by_wish_leave_the_finisher_its_share(actors: int, text_share: float | None) -> None:
    """Else no mesh would be written before the last one is made."""
    pools = with_actors(size_pools([Node(2.0)], 0.0, text_share), actors, 2.0)
    assert pools.model == actors
    assert (pools.model + pools.text) * pools.model_cpus + pools.finisher_cpus <= 2.0
    assert pools.model_cpus > 0


def test_actors_by_wish_take_no_more_than_those_of_the_plan() -> None:
    pools = size_pools([Node(16.0)], 0.0, None)
    assert with_actors(pools, 2, 16.0).model_cpus == pools.model_cpus
