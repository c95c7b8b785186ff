"""Models divided over gloo ranks learn as on one process."""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining._backward import stage_backward_input, stage_backward_weight
from torch.utils.checkpoint import checkpoint

from heliostat.errors import PlanError
from heliostat.train.apply.recompute import recomputed
from heliostat.train.apply.tensor import divide, pass_hooks
from heliostat.train.apply.tensor_divided import Divided, whole
from heliostat.train.apply.tensor_group import TensorGroup
from heliostat.train.profiling.run import meta_twin
from heliostat.train.profiling.structure import structure_of
from tests.train.apply.tensor_models import STYLES, Decoder, next_token_loss, tokens
from tests.train.apply.tensor_ranks import Case, Outcome, compare, on_ranks, world

pytestmark = pytest.mark.dist
EXACT = 1e-5
GROUP: Any = None
"""Of a group of one rank, which needs no collectives."""


def compare_styles(
    meeting: str, rank: int, size: int, *, styles: Sequence[str], sequence_parallel: bool = False
) -> dict[str, Outcome]:
    cases = {style: partial(Decoder, style) for style in styles} | {"tied": partial(Decoder, "joined", tied=True)}
    with world(meeting, rank, size):
        return {
            name: compare(Case(make, next_token_loss, tokens), rank, size, sequence_parallel=sequence_parallel)
            for name, make in cases.items()
        }


@pytest.mark.parametrize(("size", "styles"), [(2, STYLES), (3, ["joined grouped"]), (4, ["by kind", "grouped"])])
def test_decoders_of_all_styles_learn_as_on_one_process(
    ranks: ProcessPoolExecutor, tmp_path: Path, size: int, styles: Sequence[str]
) -> None:
    for outcomes in on_ranks(ranks, tmp_path, size, partial(compare_styles, styles=styles)):
        for name, found in outcomes.items():
            assert found.losses < EXACT, name
            assert found.gradients < EXACT, name
            assert {"words.weight", "layers.1.feed_forward.down.weight"} <= found.divided, name
            # heads that keys and values do not have cannot be divided
            shares_heads = size == 2 or "grouped" not in name
            assert any("attention" in path for path in found.divided) == shares_heads, name
            # the table, each half of a layer that is divided, and three in the loss
            assert found.collectives == Counter(all_reduce=4 + 2 * (1 + shares_heads)), name


@pytest.mark.parametrize(("size", "styles"), [(2, ["joined", "grouped", "torch"]), (4, ["joined", "joined grouped"])])
def test_sequence_parallel(ranks: ProcessPoolExecutor, tmp_path: Path, size: int, styles: Sequence[str]) -> None:
    for outcomes in on_ranks(ranks, tmp_path, size, partial(compare_styles, styles=styles, sequence_parallel=True)):
        for name, found in outcomes.items():
            assert found.losses < EXACT, name
            assert found.gradients < EXACT, name
        # every all-reduce between the products is a reduce-scatter and an all-gather
        assert outcomes["joined"].collectives == Counter(
            all_reduce=3, reduce_scatter_tensor=5, all_gather_into_tensor=5
        )


def job_of(name: str, meeting: str, rank: int, size: int) -> Any:
    with world(meeting, rank, size):
        found: Any = globals()[name](rank, size)
        return found


def run_job(pool: ProcessPoolExecutor, directory: Path, size: int, job: Any) -> list[Any]:
    return on_ranks(pool, directory, size, partial(job_of, job.__name__))


def divided_twin(rank: int, size: int, *, sequence_parallel: bool = False, **options: Any) -> tuple[Any, Any, Any]:
    """A decoder, the same one divided, and how."""
    torch.manual_seed(0)
    model = Decoder(options.pop("style", "joined"), **options)
    twin = copy.deepcopy(model)
    group = TensorGroup(dist.group.WORLD, rank, size, sequence_parallel=sequence_parallel)  # type: ignore[arg-type]
    return model, twin, divide(twin, structure_of(meta_twin(model), tokens(0), next_token_loss), group)


def gradient_error(model: nn.Module, twin: nn.Module, divisions: Any) -> float:
    """The largest difference."""
    own = dict(twin.named_parameters())
    return max(
        (_part(divisions, name, one.grad) - own[name].grad).abs().max().item()  # type: ignore[operator]
        for name, one in model.named_parameters()
        if own[name].grad is not None
    )


def _part(divisions: Any, name: str, whole: Any) -> Tensor:
    made: Tensor = divisions[name].of(whole) if name in divisions else whole
    return made


def recompute_in_all_ways(rank: int, size: int) -> list[float]:
    errors = []
    for sequence_parallel in (False, True):
        for wrap in WAYS:
            model, twin, divisions = divided_twin(rank, size, sequence_parallel=sequence_parallel)
            for layer in twin.layers:
                layer.forward = wrap(layer.forward)
            for one in (model, twin):
                next_token_loss(one, tokens(0)).backward()  # type: ignore[no-untyped-call]
            errors.append(gradient_error(model, twin, divisions))
    return errors


WAYS: Sequence[Callable[[Any], Any]] = (
    lambda forward: partial(checkpoint, forward, use_reentrant=False),
    lambda forward: recomputed(forward, "selective"),
)


def test_recomputation(ranks: ProcessPoolExecutor, tmp_path: Path) -> None:
    for errors in run_job(ranks, tmp_path, 2, recompute_in_all_ways):
        assert max(errors) < 1e-4


def separate_backward_passes(rank: int, size: int) -> float:
    model, twin, divisions = divided_twin(rank, size, style="grouped")
    next_token_loss(model, tokens(0)).backward()  # type: ignore[no-untyped-call]
    x = torch.zeros(4, 12, 32, requires_grad=True)
    handle = twin.layers[0].register_forward_pre_hook(lambda _, args: (args[0] + x,))
    loss = next_token_loss(twin, tokens(0))
    handle.remove()
    parameters = list(twin.parameters())
    _, groups = stage_backward_input([loss], None, [x], iter(parameters))
    stage_backward_weight(iter(parameters), groups)
    # what is below the input has its gradient from another pass
    assert {name for name, one in twin.named_parameters() if one.grad is None} <= {"words.weight", "places.weight"}
    return gradient_error(model, twin, divisions)


def test_gradients_of_inputs_first_and_of_parameters_later(ranks: ProcessPoolExecutor, tmp_path: Path) -> None:
    assert max(run_job(ranks, tmp_path, 2, separate_backward_passes)) < 1e-4


def train_with_dropout(rank: int, size: int) -> list[Tensor]:
    found = []
    for sequence_parallel in (False, True):
        _, twin, divisions = divided_twin(rank, size, sequence_parallel=sequence_parallel, dropout=0.3)
        torch.manual_seed(7)
        optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-2)
        for step in range(3):
            optimizer.zero_grad()
            next_token_loss(twin, tokens(step)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        found += [one.detach() for name, one in twin.named_parameters() if name not in divisions]
    return found


def test_with_dropout_whole_parameters_stay_equal(ranks: ProcessPoolExecutor, tmp_path: Path) -> None:
    first, second = run_job(ranks, tmp_path, 2, train_with_dropout)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def drop_a_divided_tensor(rank: int, size: int) -> Tensor:
    group = TensorGroup(dist.group.WORLD, rank, size)  # type: ignore[arg-type]
    torch.manual_seed(3)
    part = Divided(torch.ones(64), 0, ((0, 64, 128),), group)
    dropped = whole(nn.functional.dropout(part, 0.5))
    return torch.cat([dropped, torch.rand(4)])


def test_dropout_of_parts_differs_and_what_follows_is_common(ranks: ProcessPoolExecutor, tmp_path: Path) -> None:
    first, second = run_job(ranks, tmp_path, 2, drop_a_divided_tensor)
    assert torch.equal(first, second)
    assert not torch.equal(first[:64], first[64:128])


def train_with_zero(rank: int, size: int) -> list[float]:
    mesh = init_device_mesh("cpu", (size // 2, 2), mesh_dim_names=("replica", "tensor"))
    errors = []
    for sequence_parallel in (False, True):
        torch.manual_seed(0)
        model = Decoder("joined grouped")
        twin = copy.deepcopy(model)
        group = TensorGroup(mesh["tensor"].get_group(), rank % 2, 2, sequence_parallel=sequence_parallel)
        divisions = divide(twin, structure_of(meta_twin(model), tokens(0), next_token_loss), group)
        for module in (twin.words, twin.places, *twin.layers, twin.norm, twin.head):
            module.forward = recomputed(module.forward, "full")
            fully_shard(module, mesh=mesh["replica"])
            pass_hooks(module)
        for one in (model, twin):
            next_token_loss(one, tokens(0)).backward()  # type: ignore[no-untyped-call]
        for parameter in twin.parameters():
            parameter.grad = parameter.grad.full_tensor()  # type: ignore[union-attr]
        errors.append(gradient_error(model, twin, divisions))
    return errors


def test_zero_shards_the_parts(ranks: ProcessPoolExecutor, tmp_path: Path) -> None:
    for errors in run_job(ranks, tmp_path, 4, train_with_zero):
        assert max(errors) < 1e-4


def predict(rank: int, size: int) -> list[bool]:
    model, twin, _ = divided_twin(rank, size, tied=True)
    with torch.inference_mode():
        known, found = model(tokens(0)["ids"]), twin(tokens(0)["ids"])
        chances = known.softmax(dim=-1)
        return [
            tuple(found.shape) == tuple(known.shape),
            torch.allclose(whole({"logits": [found]})["logits"][0], known, atol=1e-5),
            torch.equal(found.argmax(dim=-1), known.argmax(dim=-1)),
            torch.equal(found[:, -1].topk(3).indices, known[:, -1].topk(3).indices),
            torch.allclose(whole(found.softmax(dim=-1)), chances, atol=1e-6),
            torch.allclose(whole(found.log_softmax(dim=-1)), chances.log(), atol=1e-5),
        ]


def test_predictions_are_those_of_one_device(ranks: ProcessPoolExecutor, tmp_path: Path) -> None:
    for checks in run_job(ranks, tmp_path, 2, predict):
        assert all(checks), checks


def follow_rules(rank: int, size: int) -> tuple[Outcome, Outcome]:
    case = Case(partial(Decoder, "separate"), next_token_loss, tokens)
    rules = {"layers.*.attention.*": None, "layers.0.first_norm.*": 0}
    return compare(case, rank, size, rules=rules), compare(case, rank, size, rules={"*": None})


def test_rules_of_the_user_go_before_what_follows_from_the_model(ranks: ProcessPoolExecutor, tmp_path: Path) -> None:
    for some, none in run_job(ranks, tmp_path, 2, follow_rules):
        assert max(some.losses, some.gradients, none.losses, none.gradients) < EXACT
        assert "layers.0.first_norm.weight" in some.divided
        assert not any("attention" in path for path in some.divided)
        assert none.divided == frozenset()
        assert none.collectives == Counter()


@pytest.mark.parametrize(
    ("rules", "message"),
    [({"layer.*": 0}, "'layer.\\*' fits no parameter"), ({"words.weight": 2}, "names dimension 2")],
)
def test_rules_that_cannot_be_followed(rules: dict[str, int], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        divide(Decoder("joined"), (), TensorGroup(GROUP, 0, 1), rules=rules)


def test_names_and_parts_are_found_as_on_one_device() -> None:
    model = Decoder("joined", tied=True)
    before = {name: tuple(one.shape) for name, one in model.named_parameters(remove_duplicate=False)}
    blocks = structure_of(meta_twin(model), tokens(0), next_token_loss)
    found = divide(model, blocks, TensorGroup(GROUP, 1, 2), keep=["layers.0.attention.o.weight"])
    after = {name: tuple(one.shape) for name, one in model.named_parameters(remove_duplicate=False)}
    assert before.keys() == after.keys() == model.state_dict().keys()
    assert after["words.weight"] == after["head.weight"] == (25, 32)
    assert found["layers.0.attention.qkv.weight"].spans == ((16, 32), (48, 64), (80, 96))
    assert after["layers.0.attention.o.weight"] == before["layers.0.attention.o.weight"]
    assert model.get_parameter("words.weight") is model.head._parameters["weight"]
    assert tuple(model.words.weight.shape) == before["words.weight"]
    with pytest.raises(AttributeError, match="no parameter"):
        model.get_parameter("words.bias")


class Doubled(torch.autograd.Function):
    """With a gradient of its own."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        return tensor * 2

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient * 2


class Bytes(torch.autograd.Function):
    """That reads values past torch."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        return torch.tensor(float(tensor.shape[0]))

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient.expand(4)


@pytest.mark.parametrize("function", [Doubled, Bytes])
def test_gradients_that_are_not_of_torch_are_refused(function: Any) -> None:
    part = Divided(torch.ones(2, requires_grad=True), 0, ((0, 2, 4),), TensorGroup(GROUP, 0, 2))
    made = function.apply(part)
    with pytest.raises(PlanError, match=r"cannot divide what calls torch\.autograd\.Function"):
        (made * 2).sum().backward()


@pytest.mark.parametrize(
    "write",
    [
        lambda part: part.__setitem__(0, 1.0),
        lambda part: part.index_fill_(0, torch.tensor([3]), 0.0),
        lambda part: torch.cumsum(torch.ones(4), 0, out=part),
        lambda part: part.register_hook(print),
    ],
)
def test_writing_to_what_other_ranks_have_is_refused(write: Callable[[Tensor], Any]) -> None:
    part = Divided(torch.ones(2), 0, ((0, 2, 4),), TensorGroup(GROUP, 0, 2))
    with pytest.raises(PlanError, match="cannot divide what calls"):
        write(part)


def test_kernels_that_are_not_of_torch_are_refused() -> None:
    part = Divided(torch.ones(2), 0, ((0, 2, 4),), TensorGroup(GROUP, 0, 2))
    with pytest.raises(PlanError, match="cannot divide what calls"), torch._C.DisableTorchFunctionSubclass():
        torch.exp(part)
