from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, load_model
from torch import nn

from heliostat.errors import CheckpointError, StoreError, UserError
from heliostat.train import checkpoint
from heliostat.train.checkpointer import Checkpointer, Retention
from heliostat.train.export import SAFETENSORS_DTYPES, export
from heliostat.train.pieces import Held, Piece, whole


class Net(nn.Module):
    """Tied weights, a buffer, and two precisions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.norm = nn.BatchNorm1d(3)
        self.narrow = nn.Linear(3, 3, bias=False, dtype=torch.bfloat16)
        self.head = nn.Linear(3, 7, bias=False)
        self.head.weight = self.embed.weight


def halves(tensor: torch.Tensor) -> Held:
    """As two pieces, so that a tensor has to be put together."""
    if not tensor.dim():
        return whole(tensor)
    rest = (0,) * (tensor.dim() - 1)
    pieces = (Piece(offset=(0, *rest), values=tensor[:1]), Piece(offset=(1, *rest), values=tensor[1:]))
    return Held(shape=tuple(tensor.shape), pieces=pieces)


def committed(directory: Path, tensors: dict[str, torch.Tensor], tied: dict[str, str]) -> Path:
    with Checkpointer(directory, identity={}, tied=tied, retention=Retention(1, "auc", "max")) as saver:
        saver.save(50, {"model": {name: halves(one) for name, one in tensors.items()}}, {})
    return directory / "step-00000050"


@pytest.fixture
def net() -> Net:
    torch.manual_seed(7)
    return Net()


@pytest.fixture
def path(tmp_path: Path, net: Net) -> Path:
    return committed(tmp_path / "checkpoints", checkpoint.tensors_of(net), {"head.weight": "embed.weight"})


def same(found: nn.Module, wanted: nn.Module) -> bool:
    return all(torch.equal(one, found.state_dict()[name]) for name, one in wanted.state_dict().items())


def test_safetensors_load_into_the_model_with_its_tied_weights(path: Path, tmp_path: Path, net: Net) -> None:
    file = tmp_path / "net.safetensors"
    done = export(path, file)
    fresh = Net()
    assert not any(load_model(fresh, file))
    assert same(fresh, net)
    assert fresh.head.weight is fresh.embed.weight
    assert (done.step, done.num_tensors, done.num_parameters) == (50, 7, 7 * 3 + 4 * 3 + 1 + 9)
    assert (done.file, done.num_bytes) == (str(file), file.stat().st_size)
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"format": "pt", "head.weight": "embed.weight"}
        assert opened.get_tensor("narrow.weight").dtype == torch.bfloat16


def test_a_state_dict_loads_as_torch_loads_its_own(path: Path, tmp_path: Path, net: Net) -> None:
    export(path, tmp_path / "net.pt")
    state = torch.load(tmp_path / "net.pt", weights_only=True)
    fresh = Net()
    fresh.load_state_dict(state)
    assert same(fresh, net)
    assert state["head.weight"].data_ptr() == state["embed.weight"].data_ptr()


def test_every_type_of_the_format_goes_and_comes_back(tmp_path: Path) -> None:
    tensors = {str(dtype): torch.tensor([[0, 1, 0], [1, 0, 1]]).to(dtype) for dtype in SAFETENSORS_DTYPES}
    tensors |= {"one": torch.tensor(3), "none": torch.zeros(0, 4)}
    export(committed(tmp_path, tensors, {}), tmp_path / "all.safetensors")
    found = load_file(tmp_path / "all.safetensors")
    assert found.keys() == tensors.keys()
    for name, wanted in tensors.items():
        assert found[name].dtype == wanted.dtype
        assert torch.equal(found[name], wanted)


def test_a_type_that_the_format_lacks_is_told(tmp_path: Path) -> None:
    path = committed(tmp_path, {"odd": torch.zeros(2, dtype=torch.complex128)}, {})
    with pytest.raises(UserError, match=r"no such type(.|\n)*odd(.|\n)*complex128(.|\n)*\.pt"):
        export(path, tmp_path / "odd.safetensors")
    assert not list(tmp_path.glob("*odd*"))
    export(path, tmp_path / "odd.pt")


def test_a_file_that_is_there_is_replaced_or_stays(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    file.write_bytes(b"old")
    model = path / "model" / "__0_0.distcp"
    good = model.read_bytes()
    model.write_bytes(good[:-1] + b"x")
    with pytest.raises(CheckpointError, match="manifest"):
        export(path, file)
    assert file.read_bytes() == b"old"
    model.write_bytes(good)
    export(path, file)
    assert load_file(file)
    assert {one.name for one in tmp_path.iterdir()} == {"checkpoints", "net.safetensors"}


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("net.onnx", UserError, r"ending(.|\n)*\.onnx"),
        ("absent/net.pt", StoreError, "No such file"),
        ("file/net.pt", StoreError, "Not a directory"),
    ],
)
def test_a_file_that_cannot_be(path: Path, tmp_path: Path, name: str, error: Any, message: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(error, match=message):
        export(path, tmp_path / name)
