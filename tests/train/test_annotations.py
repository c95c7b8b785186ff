"""What is said around the construction of modules becomes pins of the plan, or an error that names both sides."""

import threading
from collections.abc import Callable, Mapping
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import heliostat
from heliostat.errors import PlanError
from heliostat.placement import planner
from heliostat.placement.constraints import Constraints, PartPin, Pins
from heliostat.placement.strategy import Strategy
from heliostat.train.annotated import annotated
from heliostat.train.annotations import Marks, marks_of
from heliostat.train.profile import profile_module
from heliostat.train.profiling.structure import structure_of
from tests.placement.search.cases import A100, V100, Box, cluster

WIDTH, HEADS = 32, 4
BATCH = {"ids": torch.zeros(2, 8, dtype=torch.long)}


class Layer(nn.Module):
    """A feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, HEADS), nn.Linear(HEADS, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.down(functional.relu(self.up(self.norm(x))))
        return result


class Net(nn.Module):
    """Embedding, layers, norm and head; blocks 0, 1 to n, n + 1."""

    def __init__(self, fill: Callable[["Net"], None]) -> None:
        super().__init__()
        self.words: nn.Module
        self.norm: nn.Module
        self.head: nn.Module
        self.layers: nn.Module
        fill(self)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        for layer in self.layers.children():
            x = layer(x)
        result: Tensor = self.head(self.norm(x))
        return result


def words(net: Net) -> None:
    net.words = nn.Embedding(HEADS, WIDTH)


def ends(net: Net) -> None:
    net.norm, net.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, HEADS)


def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    logits = model(batch["ids"])
    return functional.cross_entropy(logits.flatten(0, 1), batch["ids"].flatten(), reduction="sum")


def pins_of(fill: Callable[[Net], None], **pins: object) -> Pins:
    with torch.device("meta"):
        model = Net(fill)
    return annotated(model, structure_of(model, BATCH, loss), Pins.model_validate(pins))


def refusal(fill: Callable[[Net], None], **pins: object) -> str:
    with pytest.raises(PlanError) as caught:
        pins_of(fill, **pins)
    return str(caught.value)


def planned(fill: Callable[[Net], None], **pins: object) -> Strategy:
    with torch.device("meta"):
        model = Net(fill)
    blocks = structure_of(model, BATCH, loss)
    wanted = Constraints(global_batch=8, pins=annotated(model, blocks, Pins.model_validate(pins)))
    workload = profile_module(model, BATCH, loss, seq_len=8)
    assert workload.num_blocks == len(blocks)
    return planner.plan(workload, cluster((Box(A100, 4), Box(V100, 2))), wanted).strategy


def two_stages(net: Net) -> None:
    words(net)
    with heliostat.stage(device_kind=V100):
        first = [Layer(), Layer()]
    with heliostat.stage(), heliostat.split(tensor_parallel=2):
        second = [Layer()]
    net.layers = nn.ModuleList([*first, *second])
    ends(net)


def test_a_plan_has_the_stages_of_the_model() -> None:
    first, second = planned(two_stages).stages
    assert (first.end_block, second.end_block) == (3, 5)
    assert {replica.device_kind for replica in first.replicas} == {V100}
    assert (first.tensor_parallel, second.tensor_parallel) == (1, 2)


def test_what_is_outside_goes_with_the_stage_before_it_and_the_rest_is_left_open() -> None:
    pins = pins_of(two_stages, zero=1)
    assert (pins.cuts, pins.zero, pins.num_stages) == ((3,), 1, None)
    kind, degree = pins.parts
    assert (kind.first_block, kind.end_block, kind.kind, kind.takes_tensor(8)) == (0, 3, V100, True)
    assert (degree.first_block, degree.end_block, degree.degrees) == (3, 4, "2")
    assert degree.source.startswith("split(tensor_parallel=2) at test_annotations.py:")


def test_a_model_without_annotations_pins_nothing() -> None:
    def plain(net: Net) -> None:
        words(net)
        net.layers = nn.ModuleList(Layer() for _ in range(3))
        ends(net)

    assert pins_of(plain, zero=2) == Pins(zero=2)


def divided(net: Net) -> None:
    """No stages; degrees alone."""
    words(net)
    with heliostat.split():
        halves = [Layer(), Layer()]
    with heliostat.replicate():
        net.layers = nn.ModuleList([*halves, Layer()])
        ends(net)


def test_the_planner_cuts_between_what_is_split_and_what_is_replicated() -> None:
    assert [(part.first_block, part.end_block, part.degrees) for part in pins_of(divided).parts] == [
        (1, 3, "2 or more"),
        (3, 5, "1"),
    ]
    stages = planned(divided).stages
    assert all(stage.tensor_parallel > 1 for stage in stages if stage.first_block < 3 and stage.end_block > 1)
    assert all(stage.tensor_parallel == 1 for stage in stages if stage.end_block > 3)


def test_an_annotation_inside_of_a_layer_is_about_its_block() -> None:
    class Own(Layer):
        def __init__(self) -> None:
            super().__init__()
            with heliostat.split(tensor_parallel=4):
                self.up = nn.Linear(WIDTH, HEADS)

    def fill(net: Net) -> None:
        words(net)
        net.layers = nn.Sequential(Own(), Own(), Layer())
        ends(net)

    assert [(part.first_block, part.end_block) for part in pins_of(fill).parts] == [(1, 3)]
    stages = planned(fill).stages
    assert {stage.tensor_parallel for stage in stages if stage.first_block < 3 and stage.end_block > 1} == {4}


def test_marks_follow_copies_and_reach_what_was_made_elsewhere() -> None:
    inner = Layer()
    with heliostat.stage():
        holder = nn.ModuleList([inner, Layer()])
    with heliostat.replicate():
        copied = nn.Sequential(deepcopy(holder), Layer())
    marks = marks_of(copied)
    assert marks["0.0.up"].stage == marks["0.1.up"].stage is not None
    assert marks["0.0.up"].division == marks["1"].division is not None
    assert marks["1"].stage is None
    assert holder.state_dict().keys() == deepcopy(holder).state_dict().keys()


def test_nothing_is_noted_outside_and_in_other_threads() -> None:
    plain, made = nn.Module.__init__, list[nn.Module]()

    def fail_inside() -> None:
        with heliostat.stage():
            thread = threading.Thread(target=lambda: made.append(Layer()))
            thread.start()
            thread.join()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_inside()
    made.append(Layer())
    assert len(made) == 2
    assert nn.Module.__init__ is plain
    assert all(marks == Marks() for model in made for marks in marks_of(model).values())


def nest(outer: Callable[[], object], inner: Callable[[], object]) -> str:
    with pytest.raises(PlanError) as caught, outer(), inner():  # type: ignore[attr-defined]
        pass
    return str(caught.value)


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (heliostat.stage, heliostat.stage),
        (heliostat.split, heliostat.replicate),
        (heliostat.replicate, heliostat.split),
        (heliostat.split, heliostat.split),
    ],
)
def test_what_does_not_nest(outer: Callable[[], object], inner: Callable[[], object]) -> None:
    message = nest(outer, inner)
    assert f"{inner.__name__}() at test_annotations.py:" in message
    assert f"is inside of {outer.__name__}() at test_annotations.py:" in message


def test_a_degree_that_divides_nothing() -> None:
    with pytest.raises(PlanError, match=r"split\(tensor_parallel=1\) at test_annotations.py:\d+ divides nothing"):
        heliostat.split(tensor_parallel=1)


def middle_of_a_layer(net: Net) -> None:
    words(net)
    layer = Layer()
    with heliostat.stage():
        layer.down = nn.Linear(HEADS, WIDTH)
    net.layers = nn.ModuleList([layer, Layer()])
    ends(net)


def middle_of_the_end(net: Net) -> None:
    words(net)
    with heliostat.stage():
        net.layers = nn.ModuleList([Layer(), Layer()])
    net.norm = nn.LayerNorm(WIDTH)
    with heliostat.stage():
        net.head = nn.Linear(WIDTH, HEADS)


def torn(net: Net) -> None:
    with heliostat.stage():
        words(net)
        ends(net)
    with heliostat.stage():
        net.layers = nn.ModuleList([Layer(), Layer()])


def both(net: Net) -> None:
    words(net)
    layer = Layer()
    with heliostat.split(tensor_parallel=2):
        layer.up = nn.Linear(WIDTH, HEADS)
    with heliostat.replicate():
        layer.norm = nn.LayerNorm(WIDTH)
    net.layers = nn.ModuleList([layer, Layer()])
    ends(net)


def both_in_a_stage(net: Net) -> None:
    with heliostat.stage():
        words(net)
        with heliostat.split(tensor_parallel=2):
            first = Layer()
        with heliostat.split():
            second = Layer()
        with heliostat.split(tensor_parallel=4):
            third = Layer()
        net.layers = nn.ModuleList([first, second, third])
        ends(net)


def unused(net: Net) -> None:
    words(net)
    with heliostat.stage():
        net.spare = Layer()
    net.layers = nn.ModuleList([Layer(), Layer()])
    ends(net)


@pytest.mark.parametrize(
    ("fill", "told"),
    [
        (middle_of_a_layer, ("is in the middle of block layers.0", "layers.0.down is a part of layers.0")),
        (middle_of_the_end, ("is in the middle of block norm+head", "norm of the same block: outside of it")),
        (torn, ("is not one stage: stage() at test_annotations.py:", "(norm+head)")),
        (both, ("split(tensor_parallel=2) at", "replicate() at", "are both in block layers.0")),
        (both_in_a_stage, ("split(tensor_parallel=2) at", "split(tensor_parallel=4) at", "are both in stage() at")),
        (unused, ("stage() at test_annotations.py:", "holds no block of the model")),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_annotations_that_contradict_the_blocks(fill: Callable[[Net], None], told: tuple[str, ...]) -> None:
    message = refusal(fill)
    assert all(words in message for words in told), message


@pytest.mark.parametrize(
    ("pins", "told"),
    [
        ({"num_stages": 3}, "num_stages is pinned to 3, the model has 2: stage(device_kind="),
        ({"schedule": "none"}, "schedule none is that of one stage, the model has 2"),
        ({"schedule": "interleaved"}, "schedule interleaved gives a stage blocks from all over the chain"),
        ({"cuts": (2,)}, "cuts are pinned to (2,), the stages of the model begin at (3,)"),
        ({"tensor_parallel": 4}, "tensor_parallel is pinned to 4, split(tensor_parallel=2) at test_annotations.py:"),
        ({"kinds": (A100,)}, f"kinds are pinned to {A100}, stage(device_kind='{V100}') at test_annotations.py:"),
    ],
    ids=lambda one: str(*one) if isinstance(one, dict) else "",
)
def test_annotations_that_contradict_the_experiment(pins: dict[str, object], told: str) -> None:
    assert told in refusal(two_stages, **pins)


def test_a_degree_that_the_blocks_do_not_allow() -> None:
    def fill(net: Net) -> None:
        words(net)
        with heliostat.split(tensor_parallel=8):
            net.layers = nn.ModuleList([Layer(), Layer()])
        ends(net)

    with pytest.raises(PlanError) as caught:
        planned(fill)
    assert "split(tensor_parallel=8) at test_annotations.py:" in str(caught.value)
    assert "asks for tensor_parallel 8, but block" in str(caught.value)


def test_pins_of_blocks_add_to_those_of_the_experiment() -> None:
    own = PartPin(first_block=0, end_block=1, kind=A100)
    assert pins_of(divided, parts=(own,)).parts[0] == own
