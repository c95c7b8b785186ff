"""Who may import whom, and what `import heliostat` may bring with it."""

import ast
import subprocess
import sys
from pathlib import Path

import heliostat

ROOT = Path(heliostat.__file__).parent
FLOORS = (
    ("errors",),
    ("values",),
    ("references", "document", "files"),
    ("wording",),
    ("cluster",),
    ("placement",),
    ("data",),
    ("train",),
    ("tune", "serve"),
    ("experiment",),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
RAY_ROOMS = {
    "cluster/connection.py",
    "cluster/discovery.py",
    "placement/gang.py",
    "data/asof.py",
    "data/parts.py",
    "data/prepare.py",
    "train/calibrate.py",
    "train/calibrate_cluster.py",
    "train/gauges.py",
    "train/launcher.py",
    "tune/sweep.py",
    "serve/deploy.py",
    "experiment/ray_steps.py",
}
TORCH_FOLDERS = ("train", "serve")
MLFLOW_FOLDERS = ("serve", "experiment")


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for item in ast.walk(ast.parse(path.read_text())):
        if isinstance(item, ast.Import):
            names |= {alias.name for alias in item.names}
        elif isinstance(item, ast.ImportFrom):
            assert item.level == 0, f"{path}:{item.lineno}: imports are absolute here"
            names |= {f"{item.module}.{alias.name}" for alias in item.names}
    return names


FILES = {
    str(path.relative_to(ROOT)): imports(path)
    for path in sorted(ROOT.rglob("*.py"))
    if path.parent != ROOT or path.stem != "__init__"
}


def room(name: str) -> str:
    return name.partition("/")[0].removesuffix(".py")


def test_nobody_imports_upward() -> None:
    breaches = [
        f"{file} imports heliostat.{target}"
        for file, names in FILES.items()
        for target in sorted({name.split(".")[1] for name in names if name.startswith("heliostat.")})
        if target != room(file) and FLOOR.get(target, -1) >= FLOOR[room(file)]
    ]
    assert breaches == []


def users_of(library: str) -> set[str]:
    return {file for file, names in FILES.items() if any(name.split(".")[0] == library for name in names)}


def test_ray_is_imported_only_where_talking_to_ray_is_the_job() -> None:
    assert users_of("ray") <= RAY_ROOMS


def test_torch_and_mlflow_stay_in_their_folders() -> None:
    assert {room(file) for file in users_of("torch")} <= set(TORCH_FOLDERS)
    assert {room(file) for file in users_of("mlflow")} <= set(MLFLOW_FOLDERS)


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_heliostat_and_planning_stay_light() -> None:
    heavy = {"ray", "torch", "mlflow", "pandas", "pyarrow"}
    assert not heavy & loaded_after("import heliostat")
    assert not heavy & loaded_after("import heliostat.placement.planner, heliostat.placement.solver")
    assert not heavy & loaded_after("import heliostat.cli")
