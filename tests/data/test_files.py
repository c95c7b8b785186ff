"""Files beside a table: found again by name, and held to their digest."""

from pathlib import Path

import pytest

from heliostat.data.files import check_names, read_file, write_files
from heliostat.errors import DataError, StoreError


def test_a_file_comes_back_and_is_shared_by_versions(tmp_path: Path) -> None:
    first = write_files({"tokenizer.json": b"{}", "empty": b""}, str(tmp_path))
    second = write_files({"tokenizer.json": b"{}"}, str(tmp_path))
    assert first["tokenizer.json"] == second["tokenizer.json"]
    assert first["tokenizer.json"].size_bytes == 2
    assert read_file(first["tokenizer.json"], str(tmp_path)) == b"{}"
    assert read_file(first["empty"], str(tmp_path)) == b""
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2


def test_a_file_that_changed_or_is_gone_is_refused(tmp_path: Path) -> None:
    file = write_files({"a": b"as it was"}, str(tmp_path))["a"]
    (tmp_path / file.path).write_bytes(b"as it is!")
    with pytest.raises(DataError, match="not what was written") as caught:
        read_file(file, str(tmp_path))
    assert str(tmp_path / file.path) in str(caught.value)
    (tmp_path / file.path).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read_file(file, str(tmp_path))


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "with space"])
def test_a_name_must_be_plain(name: str) -> None:
    with pytest.raises(DataError, match="plain name"):
        check_names({name: b""})


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written") as caught:
        write_files({"a": b""}, str(tmp_path / "file"))
    assert str(tmp_path) in str(caught.value)
