from __future__ import annotations

import pytest

from dream_cad.exceptions import InvalidConfigError, ModelNotFoundError
from dream_cad.placement import (
    PACK,
    SPREAD,
    GpuGroup,
    Seat,
    Tenant,
    choose_seat,
    pack,
    parse_gpus,
    site_model,
    uniform,
)

MIXED = parse_gpus("4xA10,2xA100-80")


def test_a_small_model_may_be_anywhere_with_the_share_of_the_smallest_kind() -> None:
    assert choose_seat(6, MIXED, SPREAD) == Seat(0.25, ("A10", "A100-80"))


def test_packing_keeps_the_large_kind_free() -> None:
    assert choose_seat(6, MIXED, PACK) == Seat(0.25, ("A10",), ("A10",))
    assert choose_seat(40, MIXED, PACK) == Seat(0.5, ("A100-80",), ("A100-80G",))


def test_a_large_model_is_kept_to_what_holds_it() -> None:
    three = parse_gpus("T4,L40S,H100")
    assert choose_seat(20, three) == Seat(0.42, ("L40S", "H100"), ("L40S", "H100"))


def test_one_kind_needs_no_label() -> None:
    assert choose_seat(6, uniform(24.0), PACK) == Seat(0.25, ("GPU",))


def test_what_no_gpu_holds_takes_whole_ones_of_the_largest() -> None:
    assert choose_seat(100, MIXED) == Seat(2.0, ("A100-80",), ("A100-80G",))


def test_given_shares_and_kinds_win() -> None:
    assert choose_seat(6, MIXED, accelerator="A100-80G", num_gpus=0.5).share == 0.5
    assert choose_seat(6, MIXED, accelerator="A100-80").accelerators == ("A100-80G",)
    assert choose_seat(6, MIXED, num_gpus=0.0).accelerators == ()
    with pytest.raises(InvalidConfigError, match="no accelerator 'H100'"):
        choose_seat(6, MIXED, accelerator="H100")


def test_kinds_without_labels_cannot_be_told_apart() -> None:
    groups = [GpuGroup(1, "A10", 24, "A10"), GpuGroup(1, "GPU", 80)]
    with pytest.raises(InvalidConfigError, match="accelerator type"):
        choose_seat(40, groups)
    assert choose_seat(6, groups).accelerators == ()


def test_cpus_have_no_seats_to_choose() -> None:
    assert choose_seat(6, [], PACK) == Seat()


def test_sites_of_models() -> None:
    site = site_model("triposr", MIXED, checkpoint="published", strategy=PACK)
    assert site.found.checkpoint == "published"
    assert site.seat == Seat(0.25, ("A10",), ("A10",))
    assert site_model("triposr", [], checkpoint="nano").seat == Seat()
    with pytest.raises(ModelNotFoundError):
        site_model("nobody", MIXED)


def tenants(**wanted: tuple[float, int]) -> list[Tenant]:
    names = tuple(group.name for group in MIXED)
    return [Tenant(name, Seat(share, names), count) for name, (share, count) in wanted.items()]


def test_large_shares_go_first_and_small_ones_fill_up() -> None:
    packing = pack(tenants(small=(0.25, 12), large=(0.75, 6)), MIXED)
    assert packing.left == {"small": 6}
    assert all(gpu.holds == {"large": 1, "small": 1} for gpu in packing.gpus)


def test_the_fullest_gpu_is_taken_and_the_smaller_kind_first() -> None:
    packing = pack(tenants(small=(0.3, 4)), MIXED)
    assert [(gpu.kind, gpu.number, gpu.holds["small"]) for gpu in packing.gpus if gpu.holds] == [
        ("A10", 1, 3),
        ("A10", 2, 1),
    ]


def test_no_share_spans_two_gpus() -> None:
    packing = pack(tenants(half=(0.6, 7)), MIXED)
    assert packing.placed == {"half": 6}
    assert packing.left == {"half": 1}
    assert {gpu.free for gpu in packing.gpus} == {40}


def test_whole_gpus_are_of_one_kind() -> None:
    packing = pack(tenants(huge=(4.0, 2)), MIXED)
    assert packing.left == {"huge": 1}
    assert [gpu.kind for gpu in packing.gpus if gpu.holds] == ["A10"] * 4


def test_cpu_replicas_always_find_room() -> None:
    assert pack([Tenant("cpu", Seat(), 9)], []).placed == {"cpu": 9}
