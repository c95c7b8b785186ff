"""A plan in words: sentences for a page or a terminal. Pure."""

from collections.abc import Iterator

from heliostat.placement.view.account import Account, DeviceGroup, StageAccount
from heliostat.placement.view.words import (
    SCHEDULE_WORDS,
    TIME_WORDS,
    devices_in_words,
    gib,
    kinds_in_words,
    large,
    seconds,
)

ORIGINS = {
    "live": "The cluster was discovered on live nodes",
    "file": "The cluster is described in a file",
    "emulated": "EMULATED: processes play these devices; no figure here is one of real hardware",
}
BEST = {
    "fastest": "The fastest plan found takes",
    "cheapest": "The cheapest plan found takes",
    "fewest": "The plan found with the fewest devices takes",
}


def explain(page: Account) -> Iterator[tuple[str, list[str]]]:
    """Sentences by what they are about: plan, stages, time, memory, binding, search."""
    yield "plan", list(_plan(page))
    yield "stages", list(_stages(page))
    yield "time", list(_time(page))
    yield "memory", list(_memory(page))
    yield "binding", [f"{one[0].upper()}{one[1:]}." for one in page.binding]
    yield "search", list(_search(page))


def subject(page: Account) -> str:
    """What is planned: `12.9 billion parameters, steps of 512 samples of 2,048 tokens in fp16`."""
    tokens = f" of {page.seq_len:,} tokens" if page.seq_len > 1 else ""
    return f"{large(page.num_parameters)} parameters, steps of {page.global_batch:,} samples{tokens} in {page.dtype}"


def origin_in_words(page: Account) -> str:
    """What kind of figures these are."""
    if page.origin == "emulated":
        return f"{ORIGINS['emulated']}."
    told = "some of its figures were measured on it" if page.measured else "nothing was measured on it"
    return f"{ORIGINS[page.origin]}; {told}. All times below are predictions."


def _plan(page: Account) -> Iterator[str]:
    best = BEST[page.objective]
    span = f"four steps of five between {seconds(page.low_s)} and {seconds(page.high_s)}"
    yield f"{best} {seconds(page.step_s)} a step, {span}."
    if len(page.stages) > 1:
        yield (
            f"The model is cut into {len(page.stages)} stages that work like an assembly line "
            f"({SCHEDULE_WORDS[page.schedule]})."
        )
    if page.unused:
        yield f"Idle: {kinds_in_words(page.unused)}."
    if page.target_s is not None:
        yield f"The target was {seconds(page.target_s)} a step."
    if page.price_per_hour is not None:
        step = page.price_per_hour * page.step_s / 3600
        million = step / (page.global_batch * page.seq_len) * 1e6
        unit = "tokens" if page.seq_len > 1 else "samples"
        yield f"Its devices cost {page.price_per_hour:,.4g} an hour: {step:.3g} a step, {million:.3g} a million {unit}."


def _stages(page: Account) -> Iterator[str]:
    for stage in page.stages:
        shares = "; ".join([*(_share(stage, group) for group in stage.groups), *_extras(stage)])
        yield f"Stage {stage.number}: {stage.holds} on {devices_in_words(stage.groups)}: {shares}."


def _share(stage: StageAccount, group: DeviceGroup) -> str:
    kind = f" on {group.kind}" if len(stage.groups) > 1 else ""
    how = f" of {group.ranks_per_replica} devices (tensor parallel)" if group.ranks_per_replica > 1 else ""
    replicas = (
        f"{group.num_replicas} replicas{how}{kind}, each" if group.num_replicas > 1 else f"one replica{how}{kind},"
    )
    return (
        f"{replicas} {group.num_samples:,} samples in {group.num_micro_batches:,} micro-batches of {group.micro_batch}"
    )


def _extras(stage: StageAccount) -> Iterator[str]:
    if stage.zero:
        parts = ("optimizer states", "optimizer states and gradients", "optimizer states, gradients and parameters")
        yield f"replicas share {parts[stage.zero - 1]} (ZeRO {stage.zero})"
    if stage.recompute != "none":
        yield f"{'all' if stage.recompute == 'full' else 'some'} activations are recomputed ({stage.recompute})"
    if stage.offload:
        yield "the optimizer's states are in host memory"


def _time(page: Account) -> Iterator[str]:
    total = sum(sum(stage.seconds.values()) * stage.num_ranks for stage in page.stages)
    parts = {
        part: sum(stage.seconds[part] * stage.num_ranks for stage in page.stages) / total
        for part in page.stages[0].seconds
    }
    shown = sorted((part for part in parts if parts[part] >= 0.005), key=lambda part: -parts[part])
    words = ", ".join(f"{parts[part]:.0%} {TIME_WORDS[part]}" for part in shown)
    yield f"In the mean over the devices, a step is {words}."


def _memory(page: Account) -> Iterator[str]:
    stage, group = max(
        ((stage, group) for stage in page.stages for group in stage.groups),
        key=lambda pair: pair[1].used_bytes / pair[1].capacity_bytes,
    )
    free = group.capacity_bytes - group.used_bytes
    rest = f"{gib(free)} free" if free >= 0 else f"{gib(-free)} too much"
    yield (
        f"The fullest devices are {group.kind} of stage {stage.number}: {gib(group.used_bytes)} "
        f"of {gib(group.capacity_bytes)}, {rest}."
    )
    flights = [one.in_flight for one in page.stages]
    if flights[0] > flights[-1]:
        yield (
            f"Earlier stages hold the activations of more micro-batches at once: {', '.join(map(str, flights))} "
            f"from the first stage to the last."
        )


def _search(page: Account) -> Iterator[str]:
    if page.num_candidates:
        early = "; the time was up before the search was through" if page.cut_by_budget else ""
        yield f"{page.num_candidates:,} plans were predicted exactly{early}."
    for reason, count in sorted(page.refused.items(), key=lambda item: -item[1]):
        yield f"{count:,} refused: {reason}."
