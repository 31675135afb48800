from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from dream_cad.exceptions import InvalidConfigError, StorageError
from dream_cad.models.base import Model3D, ModelCapabilities
from dream_cad.models.factory import register_model
from jobs.batch.intake import PARTS_OF_A_SIZE, WORK, Work, read_part, take_in
from jobs.batch.manifest import COMPLETED, FAILED, PARTS, Entry, Manifest
from jobs.batch.planning import Planner
from jobs.batch.reading import Record
from jobs.batch.rows import BadRow, Row, RowChecker
from jobs.batch.storage import Storage


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seed: int | None = Field(None, ge=0)
    size: float = Field(1.0, gt=0)


@pytest.fixture(autouse=True)
def own_model(clean_registry: None) -> None:
    class Own(Model3D):
        @classmethod
        def options_model(cls) -> type[BaseModel]:
            return Options

        def generate_from_text(self, prompt: str, **kwargs: Any) -> Any:
            raise NotImplementedError

        generate_from_image = generate_from_text  # type: ignore[assignment]

    register_model("own", ModelCapabilities(0.0, 0.0))(Own)


def check(**values: Any) -> Row | BadRow:
    checker = RowChecker(Planner([]).plan, "own", "/input", look_at=lambda uri: None)
    return checker.check(Record(0, values))


def good(**values: Any) -> Row:
    row = check(**values)
    assert isinstance(row, Row), row
    return row


def test_ids_follow_from_the_content_alone() -> None:
    row = good(prompt="a  chair", options={"size": 2})
    assert row.id == good(prompt="a chair", options='{"size": 2}', seed=None).id
    others = [{"prompt": "a table"}, {"prompt": "a chair", "seed": 1}, {"image": "a chair"}]
    assert len({row.id, *(good(**other).id for other in others)}) == 4
    assert row.id != good(prompt="a chair").id


def test_a_row_without_seed_gets_always_the_same() -> None:
    row = good(prompt="a chair")
    assert row.seed == good(prompt="a chair").seed
    assert row.seed is not None
    assert 0 <= row.seed < 2**31
    assert good(prompt="a chair", seed="5").seed == good(prompt="a", options={"seed": 5}).seed == 5


def test_pictures_are_found_beside_the_input() -> None:
    assert good(image="a.png").image == "/input/a.png"
    assert good(image="/b.png").image == "/b.png"
    assert good(image="s3://c/d.png").image == "s3://c/d.png"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "prompt or an image"),
        ({"prompt": "a", "image": "b"}, "not both"),
        ({"prompt": ""}, "empty"),
        ({"prompt": 5}, "text is needed"),
        ({"prompt": "bad \udce4 bytes"}, "not valid Unicode"),
        ({"image": 5}, "image is a int"),
        ({"prompt": "a", "seed": "x"}, "whole number"),
        ({"prompt": "a", "seed": 1.5}, "whole number"),
        ({"prompt": "a", "seed": True}, "whole number"),
        ({"prompt": "a", "seed": -1}, "seed"),
        ({"prompt": "a", "seed": 1, "options": {"seed": 2}}, "twice"),
        ({"prompt": "a", "options": "{"}, "not JSON"),
        ({"prompt": "a", "options": [1]}, "an object is needed"),
        ({"prompt": "a", "options": {"colour": 1}}, "colour"),
        ({"prompt": "a", "options": {"size": 0}}, "size"),
        ({"prompt": "a", "model": "nobody"}, "no model 'nobody'"),
        ({"prompt": "a", "model": "x" * 100}, "not the name"),
        ({"prompt": "a", "model": "mvdream"}, "cannot run here"),
    ],
)
def test_bad_rows_say_why(values: dict[str, Any], said: str) -> None:
    row = check(**values)
    assert isinstance(row, BadRow)
    assert said in row.error


def take(folder: Path, *rows: dict[str, Any], max_part_rows: int = 64, **more: Any) -> Work:
    records = [Record(index, values) for index, values in enumerate(rows)]
    checker = RowChecker(Planner([]).plan, "own", ".")
    storage = Storage(str(folder))
    return take_in(records, checker, storage, max_part_rows=max_part_rows, **more)


def test_only_what_is_left_becomes_work(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    done = good(prompt="a done chair")
    Manifest(storage).add([Entry(done.id, 0, COMPLETED, "x.glb")])
    rows = [{"prompt": text} for text in ("a", "a done chair", "b", "a", "")]
    work = take(tmp_path, *rows)
    assert (work.read, work.rows, work.finished, work.repeated, work.bad) == (5, 2, 1, 1, 1)
    assert work.first_repeated == 3
    parts = work.by_model["own"].parts
    assert {row.prompt for part in parts for row in read_part(storage, part)} == {"a", "b"}
    failed = [entry for entry in Manifest(storage).read() if entry.status == FAILED]
    assert [entry.index for entry in failed] == [4]
    assert "empty" in str(failed[0].error)
    assert take(tmp_path, *rows).finished == 2  # the bad row has ended, too


def test_parts_grow_and_the_largest_come_first(tmp_path: Path) -> None:
    rows = [{"prompt": f"chair {number}"} for number in range(1_000)]
    work = take(tmp_path, *rows, max_part_rows=3).by_model["own"]
    sizes = [len(read_part(Storage(str(tmp_path)), part)) for part in work.parts]
    assert sum(sizes) == work.rows == work.prompts == 1_000
    assert max(sizes) == 3
    assert sizes[-PARTS_OF_A_SIZE:] == [1] * PARTS_OF_A_SIZE


def test_a_rerun_does_not_see_old_parts(tmp_path: Path) -> None:
    take(tmp_path, {"prompt": "a"}, {"prompt": "b"})
    take(tmp_path, {"prompt": "c"})
    assert len(Storage(str(tmp_path)).list_files(WORK)) == 1


def test_inputs_of_no_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="no rows"):
        take(tmp_path)
    with pytest.raises(InvalidConfigError, match=r"None of the 2 rows.*row 1"):
        take(tmp_path, {"prompt": ""}, {"prompt": 5})
    with pytest.raises(InvalidConfigError, match="row 2"):
        take(tmp_path, {"prompt": "a"}, {"prompt": 5}, is_strict=True)
    assert Manifest(Storage(str(tmp_path))).known_ids().__len__() == 0


def entries(*names: str, status: str = COMPLETED) -> list[Entry]:
    return [Entry(name.encode().hex().ljust(32, "0"), 0, status) for name in names]


def test_the_manifest_joins_its_parts_and_keeps_each_id_once(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    manifest = Manifest(storage)
    manifest.add(entries("a", "b"))
    manifest.add(entries("b", "c"))  # a block done again by another worker
    manifest.add(entries("d", status=FAILED))
    assert len(manifest.known_ids()) == 4
    assert manifest.join() == {COMPLETED: 3, FAILED: 1}
    assert storage.list_files(PARTS) == []
    manifest.add(entries("e"))
    assert manifest.join(drop_failed=True) == {COMPLETED: 4, FAILED: 0}
    assert len(list(manifest.read())) == 4


def test_an_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Could not write"):
        Storage(str(tmp_path / "file" / "below")).probe()


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write("a/b", b"old")

    def write_half() -> None:
        with storage.replacing("a/b") as stream:
            stream.write(b"new")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_half()
    assert storage.read("a/b") == b"old"
