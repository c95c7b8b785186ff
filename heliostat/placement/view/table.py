"""A plan in the terminal: words and tables. Pure: an `Account` in, rich renderables out."""

from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from heliostat.placement.view.account import MEMORY_PARTS, TIME_PARTS, Account
from heliostat.placement.view.explain import explain, origin_in_words, subject
from heliostat.placement.view.words import GIB, MIB, devices_in_words, kinds_in_words, large, seconds

HEADERS = {
    "bubble": "waiting",
    "gather": "gathering",
    "sync": "gradients",
    "parameters": "params",
    "gradients": "grads",
    "activations": "activ.",
    "temporary": "temp.",
}
"""Parts whose names are not the headers of their columns."""
SMALLEST = 1 / 2000
"""A smaller part of the whole is left out."""


def page(account: Account) -> Group:
    """Everything there is to say of the plan."""
    return Group(*_parts(account))


def _parts(account: Account) -> Iterator[RenderableType]:
    words = dict(explain(account))
    if account.origin == "emulated":
        yield Text(f" {origin_in_words(account)} ", style="bold reverse magenta")
    nodes = f"{account.num_nodes:,} node{'s' if account.num_nodes != 1 else ''}"
    yield Text.assemble((f"{account.name}: ", "bold"), subject(account))
    yield Text.assemble(("on ", "bold"), f"{kinds_in_words(account.devices)}, {nodes}")
    if account.origin != "emulated":
        yield Text(origin_in_words(account), style="dim")
    tokens = account.global_batch * account.seq_len / account.step_s
    rate = f"{large(tokens)} {'tokens' if account.seq_len > 1 else 'samples'} a second"
    part = f", {account.utilisation:.0%} of the devices' peak" if account.utilisation is not None else ""
    yield Text.assemble((f"\n{words['plan'][0]}", "bold"), f"\n{rate}{part}.")
    yield from map(Text, words["plan"][1:])
    yield _stages(account)
    yield _times(account)
    yield _memory(account)
    yield _points(account, words)


def _stages(account: Account) -> Table:
    rows = [(stage, group) for stage in account.stages for group in stage.groups]
    return _table(
        {
            "stage": [str(stage.number) for stage, _ in rows],
            "holds": [stage.holds for stage, _ in rows],
            "devices": [devices_in_words([group]) for _, group in rows],
            "replicas": [f"{group.num_replicas}" for _, group in rows],
            "tensor": [str(stage.tensor_parallel) if stage.tensor_parallel > 1 else "" for stage, _ in rows],
            "context": [str(stage.context_parallel) if stage.context_parallel > 1 else "" for stage, _ in rows],
            "ZeRO": [str(stage.zero) if stage.zero else "" for stage, _ in rows],
            "recompute": [stage.recompute if stage.recompute != "none" else "" for stage, _ in rows],
            "offload": ["optimizer" if stage.offload else "" for stage, _ in rows],
            "micro-batches": [f"{group.num_micro_batches:,} x {group.micro_batch}" for _, group in rows],
        },
        title="Stages (micro-batches: of each replica, times their samples)",
    )


def _times(account: Account) -> Table:
    rows = [stage.seconds for stage in account.stages]
    factor, unit = (1.0, "seconds") if account.step_s >= 1 else (1e3, "milliseconds")
    columns = {
        "stage": [str(stage.number) for stage in account.stages],
        **_columns(rows, TIME_PARTS, factor),
        "busy": [f"{stage.busy_s / account.step_s:.0%}" for stage in account.stages],
    }
    return _table(columns, title=f"Where the {unit} of a step go")


def _memory(account: Account) -> Table:
    rows = [(stage, group) for stage in account.stages for group in stage.groups]
    is_large = max(group.used_bytes for _, group in rows) >= GIB
    num_bytes, unit = (GIB, "GiB") if is_large else (MIB, "MiB")
    columns = {
        "stage": [str(stage.number) for stage, _ in rows],
        "on each": [group.kind for _, group in rows],
        **_columns([group.memory_bytes for _, group in rows], MEMORY_PARTS, 1 / num_bytes),
        "sum": [f"{group.used_bytes / num_bytes:,.1f}" for _, group in rows],
        "of": [f"{group.capacity_bytes / num_bytes:,.1f}" for _, group in rows],
        "full": [f"{group.used_bytes / group.capacity_bytes:.0%}" for _, group in rows],
    }
    return _table(columns, title=f"Memory at the peak, {unit}", marked=[not group.fits for _, group in rows])


def _columns(rows: Sequence[Mapping[str, float]], parts: Sequence[str], factor: float) -> dict[str, list[str]]:
    """A column for each part that is worth one."""
    least = SMALLEST * max(sum(row.values()) for row in rows)
    digits = 2 if max(sum(row.values()) for row in rows) * factor < 100 else 0
    return {
        HEADERS.get(part, part): [f"{row[part] * factor:,.{digits}f}" if row[part] > least else "" for row in rows]
        for part in parts
        if any(row[part] > least for row in rows)
    }


def _table(columns: Mapping[str, Sequence[str]], *, title: str, marked: Sequence[bool] = ()) -> Table:
    """A table without the columns that nobody has anything to say in."""
    said = {header: cells for header, cells in columns.items() if any(cells)}
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for header, cells in said.items():
        numbers = header != "devices" and all(not cell or cell[0].isdigit() for cell in cells)
        table.add_column(header, justify="right" if numbers else "left", overflow="fold", no_wrap=header != "holds")
    for place, row in enumerate(zip(*said.values(), strict=True)):
        table.add_row(*map(Text, row), style="bold red" if place < len(marked) and marked[place] else None)
    return table


def _points(account: Account, words: Mapping[str, Sequence[str]]) -> Table:
    """What binds, what lost and what was left out, each under its name."""
    rivals = [f"{seconds(rival.step_s)}, {rival.why}. It is {rival.plan}." for rival in account.rivals[:1]]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for title, sentences in (("binding", words["binding"]), ("runner-up", rivals), ("searched", words["search"])):
        for number, one in enumerate(sentences):
            grid.add_row(title if number == 0 else "", Text(one))
    return grid
