"""What the terminal shows of a plan."""

import io

from rich.console import Console

from heliostat.placement.plan_file import PlanFile
from heliostat.placement.view.account import account_of
from heliostat.placement.view.table import page
from tests.placement.view.plans import CLUSTER, plan, strategy, uneven


def shown(written: PlanFile, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(page(account_of(written)[0]))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_everything_is_there() -> None:
    text = shown(plan(strategy(zero=1)))
    for words in (
        "gpt-13b: 12.9 billion parameters, steps of 64 samples of 2,048 tokens in fp16",
        "on 16 x A100-40GB-SXM + 16 x V100-32GB-SXM, 4 nodes",
        "The cluster is described in a file; nothing was measured on it. All times below are predictions.",
        "The model is cut into 4 stages",
        "embedding, layers 1-15   8 x A100-40GB-SXM          2        4      1          16 x 2",
        "Where the seconds of a step go",
        "Memory at the peak, GiB",
        "binding    Stage 0 (8 x A100-40GB-SXM) sets the pace",
        "runner-up",
        "searched   345 plans were predicted exactly.",
        "12 refused: a device has not enough memory.",
    ):
        assert words in text
    assert "EMULATED" not in text
    assert "offload" not in text


def test_kinds_of_replicas_have_rows_of_their_own() -> None:
    text = shown(plan(uneven()))
    assert "16 x A100-40GB-SXM" in text
    assert "3 x 1" in text
    assert "1 x 1" in text
    assert "gathering" in text


def test_an_emulation_says_so_first() -> None:
    text = shown(plan(cluster=CLUSTER.model_copy(update={"origin": "emulated"})))
    assert text.startswith(" EMULATED: ")


def test_a_search_that_ran_out_of_time_says_so() -> None:
    assert "the time was up before the search was through" in shown(plan(cut_by_budget=True))
