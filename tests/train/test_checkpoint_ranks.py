"""What the ranks of one plan have saved, the ranks of any other plan read."""

import resource
import signal
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load

from heliostat.errors import StoreError
from heliostat.train import checkpoint
from heliostat.train.checkpointer import Checkpointer, Retention
from tests.train.gloo import together
from tests.train.layouts import LAYOUTS, SHAPES, states, values, zeros

pytestmark = pytest.mark.dist


def save(rank: int, directory: Path, layout: str) -> None:
    """Save two steps; the values of the first are overwritten in place while it is being written."""
    content = values(1)
    own = states(LAYOUTS[layout], rank, content)
    retention = Retention(keep=2, metric="loss", mode="min")
    with Checkpointer(directory, identity={"seed": 7}, tied={}, retention=retention) as saver:
        saver.save(1, own, {})
        for state, fresh in zip(own.values(), states(LAYOUTS[layout], rank, values(2)).values(), strict=True):
            for name, held in state.items():
                for piece, new in zip(held.pieces, fresh[name].pieces, strict=True):
                    piece.values.copy_(new.values)
        saver.save(2, own, {"loss": 0.5})


def differing(rank: int, paths: list[Path], layout: str) -> list[str]:
    """What a rank of `layout` reads wrongly from checkpoints of steps 1 and 2."""
    found = []
    for path in paths:
        content = zeros()
        own = states(LAYOUTS[layout], rank, content)
        step = checkpoint.read(path, own).step
        wanted = states(LAYOUTS[layout], rank, values(step))
        found += [
            f"{path}: {name}"
            for part in own
            for name, held in own[part].items()
            for piece, right in zip(held.pieces, wanted[part][name].pieces, strict=True)
            if not torch.equal(piece.values, right.values)
        ]
    return found


@pytest.fixture(scope="module")
def saved(ranks: ProcessPoolExecutor, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of every layout the directory of its checkpoints."""
    folder = tmp_path_factory.mktemp("saved")
    for name, layout in LAYOUTS.items():
        together(ranks, folder, save, layout.num_ranks, folder / name, name)
    return {name: folder / name for name in LAYOUTS}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_reads_what_every_layout_has_saved(
    ranks: ProcessPoolExecutor, tmp_path: Path, saved: dict[str, Path], layout: str
) -> None:
    paths = [directory / f"step-0000000{step}" for directory in saved.values() for step in (1, 2)]
    wrong = together(ranks, tmp_path, differing, LAYOUTS[layout].num_ranks, paths, layout)
    assert wrong == [[]] * LAYOUTS[layout].num_ranks


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_element_is_written_once(saved: dict[str, Path], layout: str) -> None:
    path = checkpoint.latest(saved[layout])
    assert path is not None
    assert checkpoint.verify(path).metrics == {"loss": 0.5}
    index: Any = FileSystemReader(path / "model").read_metadata()
    assert {
        name: sum(chunk.sizes.numel() for chunk in one.chunks) for name, one in index.state_dict_metadata.items()
    } == {name: torch.Size(shape).numel() for name, shape in SHAPES.items()}


def test_copies_are_written_by_all_ranks_in_turn(saved: dict[str, Path]) -> None:
    sizes = [
        (saved["two-copies"] / "step-00000002" / "optimizer" / f"__{rank}_0.distcp").stat().st_size for rank in (0, 1)
    ]
    assert 0.5 < sizes[0] / sizes[1] < 2


def test_equal_states_of_one_layout_have_one_digest(
    ranks: ProcessPoolExecutor, tmp_path: Path, saved: dict[str, Path]
) -> None:
    together(ranks, tmp_path, save, 4, tmp_path / "again", "tensor2-zero2")
    digests = [
        checkpoint.weights_digest(directory / f"step-0000000{step}")
        for directory in (saved["tensor2-zero2"], tmp_path / "again")
        for step in (1, 2)
    ]
    assert digests[:2] == digests[2:]
    assert len(set(digests)) == 2


def test_torch_reads_the_parts_as_its_own(saved: dict[str, Path]) -> None:
    state = zeros()["model"]
    with pytest.warns(UserWarning, match="single process"):
        load(state, checkpoint_id=saved["pipeline2+2"] / "step-00000002" / "model", no_dist=True)
    assert all(torch.equal(state[name], right) for name, right in values(2)["model"].items())


def fill_the_disk_of_one(rank: int, directory: Path) -> list[str]:
    """Save steps 1, 2 and 3 on two ranks, of which the second cannot write step 2; the errors that a rank sees."""
    own = states(LAYOUTS["two-copies"], rank, values(1))
    retention = Retention(keep=9, metric="loss", mode="min")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    found = []
    with Checkpointer(directory, identity={}, tied={}, retention=retention) as saver:
        for step in (1, 2, 3):
            if rank == 1 and step == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
            try:
                saver.save(step, own, {})
                saver.wait()
            except StoreError as error:
                found.append(f"{step}: {error.what}")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    return found


def test_a_full_disk_of_one_rank_is_an_error_of_all_and_loses_nothing(
    ranks: ProcessPoolExecutor, tmp_path: Path
) -> None:
    errors = together(ranks, tmp_path, fill_the_disk_of_one, 2, tmp_path / "full")
    assert errors == [["2: a checkpoint cannot be written"]] * 2
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == ["step-00000001", "step-00000003"]
