"""Build the directory that a served model is: weights, `model.json`, the user's code as it was in training, files."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from heliostat.data.files import write_files
from heliostat.data.versions import DatasetVersion
from heliostat.references import import_root, locate
from heliostat.serve.loading import CODE, DATA, SPEC, WEIGHTS, PackagedModel
from heliostat.train.export import export


def build_package(
    directory: Path,
    *,
    task: str,
    params: Mapping[str, Any],
    features: str | None,
    data: DatasetVersion,
    weights: str | Path,
    modules: Mapping[str, Path],
) -> Path:
    """Write a package to `directory`, replacing what is there, and return `directory`.

    Args:
        directory: the package; anything that can be copied as a directory can be deployed from.
        task: reference of the Task the weights were trained with.
        params: its parameters.
        features: reference of the FeatureSet the dataset was made with; None for one without.
        data: the dataset version trained on; its encoder and its files go into the package.
        weights: a committed checkpoint directory.
        modules: dotted name -> source file of the user's modules that task and features reach. The files that the two
            references name, and the `__init__.py` of every package on the way, are added.

    Raises:
        CheckpointError: the checkpoint is damaged.
        DataError: a file of the dataset version is gone.
        ReferenceNotFound: a file that a reference names does not exist.
    """
    shutil.rmtree(directory, ignore_errors=True)
    named = {**_named(task), **(_named(features) if features else {})}
    files = _complete({**modules, **named})
    for name, source in files.items():
        target = directory / CODE / _relative(name, source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    directory.mkdir(parents=True, exist_ok=True)
    write_files({name: data.file(name) for name in data.files}, str(directory / DATA))
    export(weights, directory / WEIGHTS)
    spec = PackagedModel(
        task=_dotted(task),
        params=dict(params),
        features=_dotted(features) if features else None,
        data=data,
        modules=tuple(sorted(files)),
    )
    (directory / SPEC).write_text(spec.model_dump_json(indent=1))
    return directory


def _named(reference: str) -> dict[str, Path]:
    """The module that a file reference names; a dotted one may be installed, and is not copied for being named."""
    path = locate(reference)
    return {} if path is None else {import_root(path)[1]: path}


def _dotted(reference: str) -> str:
    path = locate(reference)
    return reference if path is None else f"{import_root(path)[1]}:{reference.rpartition(':')[2]}"


def _complete(modules: Mapping[str, Path]) -> dict[str, Path]:
    """`modules` and the packages they are in: without its `__init__.py` a package would not be found."""
    packages = {name: path for module, file in modules.items() for name, path in _parents(module, file)}
    return {**packages, **modules}


def _parents(module: str, file: Path) -> Iterator[tuple[str, Path]]:
    folder = file.parent.parent if file.name == "__init__.py" else file.parent
    while "." in module:
        module = module.rpartition(".")[0]
        if (folder / "__init__.py").is_file():
            yield module, folder / "__init__.py"
        folder = folder.parent


def _relative(module: str, file: Path) -> Path:
    path = Path(*module.split("."))
    return path / "__init__.py" if file.name == "__init__.py" else path.with_suffix(".py")
