from __future__ import annotations

import pytest

from dream_cad.exceptions import InvalidConfigError
from dream_cad.placement import GpuGroup, parse_gpus, uniform


def test_kinds_are_read_with_their_memory_and_rays_label() -> None:
    assert parse_gpus("4xA10, 2xA100-80,h100") == [
        GpuGroup(4, "A10", 24, "A10"),
        GpuGroup(2, "A100-80", 80, "A100-80G"),
        GpuGroup(1, "h100", 80, "H100"),
    ]


@pytest.mark.parametrize("name", ["A100-80GB", "A100-80G", "a100-80"])
def test_memory_may_be_written_as_people_do(name: str) -> None:
    assert parse_gpus(name)[0].accelerator == "A100-80G"


def test_unknown_kinds_need_their_memory() -> None:
    assert parse_gpus("2xMI300:192") == [GpuGroup(2, "MI300", 192, "MI300")]
    with pytest.raises(InvalidConfigError, match=r"memory of a MI300") as caught:
        parse_gpus("2xMI300")
    assert "2xMI300:24" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "0xA10", "-1xA10", "A10,,L4", "4x", "x", "1xA10:0", "200000xT4"]
)
def test_what_cannot_be_read_is_told(text: str) -> None:
    with pytest.raises(InvalidConfigError):
        parse_gpus(text)


def test_a_kind_stands_once() -> None:
    with pytest.raises(InvalidConfigError, match="twice"):
        parse_gpus("A10,3xA10")


def test_a_cluster_of_cpus_has_no_groups() -> None:
    assert uniform(0.0) == []
    assert uniform(24.0, 3) == [GpuGroup(3, "GPU", 24.0)]
