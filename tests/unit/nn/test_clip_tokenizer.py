from __future__ import annotations

import json
from pathlib import Path

import pytest

from dream_cad.exceptions import CheckpointError, InvalidConfigError
from dream_cad.nn.clip_tokenizer import ClipTokenizer
from tests.tiny_mvdream import write_tokenizer


@pytest.fixture(scope="module")
def bundled() -> ClipTokenizer:
    return ClipTokenizer.bundled()


def test_ids_are_clips(bundled: ClipTokenizer) -> None:
    ids = bundled(["a photo of a cat", "A  Photo of&amp;a\ncat"])
    assert ids[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 0]
    assert ids[1, :8].tolist() == [49406, 320, 1125, 539, 261, 320, 2368, 49407]


def test_a_long_text_ends_with_the_end(bundled: ClipTokenizer) -> None:
    ids = bundled(["cat " * 100])
    assert ids.shape == (1, 77)
    assert ids[0, -1] == 49407
    assert bundled.count("cat cat") == 4


def test_where_a_text_would_be_cut_is_told(bundled: ClipTokenizer) -> None:
    bundled.check_fits("cat " * 75, "prompt")
    with pytest.raises(InvalidConfigError) as caught:
        bundled.check_fits("red " * 74 + "wooden chair", "prompt")
    assert str(caught.value.hint).endswith("red red wooden'.")


def test_files_are_read(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokens")
    read = ClipTokenizer.from_folder(tmp_path / "tokens", 8)
    assert read(["red chair"]).shape == (1, 8)
    assert read.count("red chair") == 4


def test_damaged_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        ClipTokenizer.from_folder(tmp_path)
    write_tokenizer(tmp_path / "t")
    (tmp_path / "t" / "vocab.json").write_text(json.dumps({"a": 0}))
    with pytest.raises(CheckpointError, match=r"startoftext"):
        ClipTokenizer.from_folder(tmp_path / "t")
    write_tokenizer(tmp_path / "u")
    (tmp_path / "u" / "merges.txt").write_text("no such pair of words")
    with pytest.raises(CheckpointError, match="cannot be read"):
        ClipTokenizer.from_folder(tmp_path / "u")
