"""A package stands alone: what is in it, and that its code is the code it was trained with."""

from pathlib import Path

import pytest

from heliostat.errors import CheckpointError, ReferenceNotFound
from heliostat.serve.loading import PackagedModel
from heliostat.serve.package import build_package
from tests.serve.conftest import MakePackage, dataset_version


def files(package: Path) -> list[str]:
    return sorted(str(path.relative_to(package)) for path in package.rglob("*") if path.is_file())


def test_a_package_holds_weights_spec_and_just_the_code(make_package: MakePackage) -> None:
    package = make_package({"width": 4})
    code = [f"code/delays/{name}.py" for name in ("__init__", "clock", "features", "task")]
    assert files(package) == [*code, "model.json", "weights.pt"]

    spec = PackagedModel.model_validate_json((package / "model.json").read_text())
    assert spec.task == "delays.task:LateTask"
    assert spec.features == "delays.features:FEATURES"
    assert spec.params == {"width": 4}
    assert spec.data == dataset_version()
    assert spec.modules == ("delays", "delays.clock", "delays.features", "delays.task")


def test_packaging_again_leaves_nothing_of_the_old(make_package: MakePackage) -> None:
    (make_package() / "code" / "old.py").write_text("")
    assert "code/old.py" not in files(make_package())


def test_modules_outside_any_package_and_nested_ones(make_package: MakePackage, tmp_path: Path) -> None:
    make_package()
    inner = tmp_path / "deep" / "a" / "b"
    inner.mkdir(parents=True)
    for path in (inner / "c.py", inner / "__init__.py", inner.parent / "__init__.py", tmp_path / "alone.py"):
        path.write_text("X = 1\n")
    package = build_package(
        tmp_path / "second",
        task=f"{tmp_path}/alone.py:X",
        params={},
        features="installed.elsewhere:FEATURES",
        data=dataset_version(),
        weights=tmp_path / "checkpoints" / "step-00000010",
        modules={"a.b.c": inner / "c.py", "a.b": inner / "__init__.py"},
    )
    code = ["code/a/__init__.py", "code/a/b/__init__.py", "code/a/b/c.py", "code/alone.py"]
    assert files(package) == [*code, "model.json", "weights.pt"]
    spec = PackagedModel.model_validate_json((package / "model.json").read_text())
    assert (spec.task, spec.features) == ("alone:X", "installed.elsewhere:FEATURES")


def test_what_cannot_be_packaged(make_package: MakePackage, tmp_path: Path, code: Path) -> None:
    (code / "task.py").unlink()
    with pytest.raises(ReferenceNotFound, match=r"task\.py"):
        make_package()
    (code / "task.py").write_text("")
    for path in (tmp_path / "checkpoints" / "step-00000010" / "model").iterdir():
        path.write_bytes(b"torn")
    with pytest.raises(CheckpointError):
        make_package()
