"""Profiles of tasks and of modules of any kind: chains, boundaries, what cannot be told without values."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from heliostat.data.versions import DatasetVersion
from heliostat.errors import TrainingFailure, UserError
from heliostat.placement.workload import WorkloadProfile
from heliostat.train.profile import profile_module, profile_task
from heliostat.train.profiling.run import Batch

TOY = f"{Path(__file__).parent / 'toy.py'}:Toy"
NUM_ROWS = 30
"""Of the toy's validation split."""


def profile(model: nn.Module, *shape: int, seq_len: int = 1) -> WorkloadProfile:
    """Of a model that takes four samples of `shape` and whose outputs are summed."""

    def loss(made: nn.Module, batch: Batch) -> Tensor:
        total: Tensor = made(batch["x"]).sum()
        return total

    return profile_module(model, {"x": torch.zeros(4, *shape)}, loss, seq_len=seq_len)


def test_blocks_hold_what_the_tasks_model_holds(toy_data: DatasetVersion) -> None:
    workload, _ = profile_task(TOY, toy_data, {"width": 16})
    first, tanh, head = workload.blocks
    assert workload.name == "Toy"
    assert [block.num_parameters for block in workload.blocks] == [4 * 16 + 16, 0, 17]
    assert [block.name for block in workload.blocks] == ["0", "1+2", "3"]  # dropout of nothing does nothing
    assert [block.boundary_elements for block in workload.blocks] == [16, 16, 0]
    assert [(op.kind, op.rows, op.n, op.k) for op in first.ops] == [("matmul", 1, 16, 4)]
    assert head.forward_flops == 2 * 16
    assert [op.kind for op in head.ops] == ["matmul", "memory"]  # the loss is the last block's
    assert [(op.elements, op.backward_elements) for op in tanh.ops] == [(2 * 16, 3 * 16)]
    assert first.saved.replicated == 2 * 4  # the rows, in elements of two bytes
    assert tanh.saved.replicated == 2 * 16  # its result, which the head saves again
    assert head.saved.replicated == 2 * 2  # its result, and the labels
    assert all(block.largest_tensor_parallel == 1 for block in workload.blocks)


def test_equal_neighbours_are_one_block_with_a_count(toy_data: DatasetVersion) -> None:
    workload, _ = profile_task(TOY, toy_data, {"fault": "deep", "width": 8})
    assert [(block.name, block.count) for block in workload.blocks] == [("0", 1), ("1", 5), ("6", 1)]
    assert workload.num_parameters == (4 * 8 + 8) + 5 * (8 * 8 + 8) + 9


def test_a_parameter_that_nothing_uses_is_counted_once(toy_data: DatasetVersion) -> None:
    assert profile_task(TOY, toy_data, {"fault": "unused"})[0].num_parameters == (4 * 8 + 8) + 9 + 3


def test_a_loss_that_looks_at_values_is_counted_where_they_are(toy_data: DatasetVersion) -> None:
    workload, _ = profile_task(TOY, toy_data, {"fault": "experts"})
    assert workload.num_parameters == 10
    assert [block.name for block in workload.blocks] == ["left", "right"]


def test_a_broken_loss_is_the_users_to_see(toy_data: DatasetVersion) -> None:
    with pytest.raises(TrainingFailure, match="must return"):
        profile_task(TOY, toy_data, {"fault": "mean"})


class Asks(nn.Module):
    """Looks at a value."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y if y.sum() < 0 else 2 * y


def test_a_model_on_the_meta_device_that_looks_at_values_is_refused() -> None:
    assert profile(Asks(), 4).num_parameters == 20
    with torch.device("meta"):
        model = Asks()
    with pytest.raises(UserError, match="does not run on the meta device") as error:
        profile(model, 4)
    assert "holds values" in str(error.value)


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(UserError, match="no trainable parameter"):
        profile(nn.Tanh(), 4)


def test_the_model_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attend, dropout = functional.scaled_dot_product_attention, functional.dropout
    profile(model, 4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert "forward" not in vars(model[0])
    assert (functional.scaled_dot_product_attention, functional.dropout) == (attend, dropout)


class Skips(nn.Module):
    """The first layer's output goes to the next layer and to the last."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.layers[0](x)
        y = first
        for layer in self.layers[1:-1]:
            y = layer(y)
        result: Tensor = self.layers[-1](y + first)
        return result


def test_what_passes_over_blocks_is_part_of_the_boundaries_in_between() -> None:
    blocks = [block for block in profile(Skips(), 6).blocks for _ in range(block.count)]
    # the sum that the last layer takes is made after the layer before it
    assert [block.boundary_elements for block in blocks[:-1]] == [6, 12, 12, 6]
    assert [block.carried_elements for block in blocks] == [0, 6, 6, 0, 0]
    # the second reads what is kept elsewhere, as it passes on; the next two their own inputs
    assert [block.saved.replicated for block in blocks] == [12, 0, 12, 12, 12]


class Shares(nn.Module):
    """One layer that runs three times."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6)] * 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_a_layer_that_runs_often_has_its_parameters_once() -> None:
    workload = profile(Shares(), 6)
    assert workload.num_parameters == 42
    assert workload.forward_flops == 3 * 2 * 36
    assert workload.num_blocks == 3


def test_layers_that_differ_in_a_setting_are_different() -> None:
    model = nn.Sequential(*(nn.TransformerEncoderLayer(8, 2, 16, dropout=rate) for rate in (0.1, 0.0, 0.0, 0.0, 0.1)))
    assert [block.count for block in profile(model, 5, 8).blocks] == [1, 3, 1]


def test_parts_of_a_stack_of_layers_stay_together() -> None:
    layers = [nn.Sequential(nn.Linear(before, 6), nn.ReLU()) for before in (4, 6, 6, 6)]
    blocks = profile(nn.Sequential(nn.Sequential(*layers), nn.Linear(6, 1)), 4).blocks
    assert [(block.name, block.count) for block in blocks] == [("0.0", 1), ("0.1", 3), ("1", 1)]


class AddsInPlace(nn.Module):
    """Changes its input and returns it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x += self.inner(x)
        return x


def test_what_is_changed_in_place_is_not_carried() -> None:
    blocks = profile(nn.Sequential(nn.Linear(6, 6), *(AddsInPlace() for _ in range(4))), 6).blocks
    assert [(block.count, block.boundary_elements, block.carried_elements) for block in blocks[:-1]] == [
        (1, 6, 0), (3, 6, 0),
    ]  # fmt: skip


def test_pytorchs_own_encoder_layer_is_taken_apart() -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
    workload = profile(nn.TransformerEncoder(layer, 5, enable_nested_tensor=False), 10, 32, seq_len=10)
    _, block, _ = workload.blocks  # the first needs no gradient of its input, and the loss is the last one's
    assert (workload.seq_len, block.count, block.largest_tensor_parallel, block.tensor_collectives) == (10, 3, 4, 2)
    kinds = [(op.kind, op.split) for op in block.ops if op.kind != "memory"]
    assert kinds == [("matmul", "column"), ("attention", "heads"), ("matmul", "row"), ("matmul", "column"),
                     ("matmul", "row")]  # fmt: skip
    attention = next(op for op in block.ops if op.kind == "attention")
    assert (attention.rows, attention.n, attention.k, attention.batch, attention.causal) == (10, 10, 8, 4, False)
    assert block.split_parameters == 32 * 96 + 96 + 32 * 32 + 2 * 32 * 64 + 64


def test_convolutions_are_products_and_nothing_that_can_be_divided_for_certain() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    first, norm, relu = profile(model, 3, 16, 16).blocks
    assert [(op.kind, op.rows, op.n, op.k, op.split) for op in first.ops if op.kind == "matmul"] == [
        ("matmul", 8 * 8, 8, 27, "none")
    ]
    assert first.boundary_elements == norm.boundary_elements == 8 * 64
    assert relu.name == "2+3"  # flattening moves nothing
    assert {block.largest_tensor_parallel for block in (first, norm, relu)} == {1}


class Inner(nn.Module):
    """Two products with `between` on what lies between them."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.up, self.between, self.down = nn.Linear(8, 12), between, nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down(self.between(self.up(x)))
        return result


class Whole(nn.Module):
    """Adds its input, so that nothing in it stays inside."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.inner(x)
        return result


@pytest.mark.parametrize(
    ("between", "limit"),
    [
        (nn.GELU(), 12),
        (nn.Unflatten(1, (6, 2)), 1),  # not what the next product reads
        (nn.LayerNorm(12), 1),  # needs every column
        (nn.Softmax(dim=-1), 1),
        (nn.Sequential(nn.Unflatten(1, (6, 2)), nn.LayerNorm(2), nn.Flatten(1)), 6),  # a norm of every head
        (nn.Sequential(nn.Unflatten(1, (6, 2)), nn.Softmax(dim=1), nn.Flatten(1)), 2),
        (nn.ReLU(), 12),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_a_pair_of_products_is_divided_only_if_all_between_works_on_parts(between: nn.Module, limit: int) -> None:
    if isinstance(between, nn.Unflatten):
        between = nn.Sequential(between, nn.Flatten(1), nn.LayerNorm(12))
    model = nn.Sequential(Whole(Inner(between)), Whole(Inner(between)))
    block = profile(model, 8).blocks[0]
    assert block.largest_tensor_parallel == limit
    assert [op.split for op in block.ops if op.kind == "matmul"] == (["column", "row"] if limit > 1 else ["none"] * 2)
    assert block.tensor_collectives == (limit > 1)
