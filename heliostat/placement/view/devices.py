"""The pipeline as a map: a box for each stage, with the devices that share it. Pure."""

from collections.abc import Iterator

from heliostat.placement.view.account import Account, DeviceGroup, StageAccount
from heliostat.placement.view.svg import WIDTH, Drawing, line, rect, text, wrapped
from heliostat.placement.view.words import devices_in_words

PER_ROW, ARROW = 4, 22.0
CELL, SPACE, PADDING, HEAD, LINE = 13.0, 3.0, 14.0, 71.0, 14.0
MAX_ROWS, MAX_RANKS = 2, 8
"""More rows of replicas, or ranks of one, are counted, not drawn."""
SHADES = ("var(--blue)", "var(--red)", "var(--green)", "var(--yellow)", "var(--purple)", "var(--cyan)", "var(--grey)")


def device_map(page: Account) -> Drawing:
    """Boxes from the first stage to the last, as the samples pass them."""
    many = min(PER_ROW, len(page.stages))
    width = (WIDTH - (many - 1) * ARROW) / many
    colors = {kind: SHADES[number % len(SHADES)] for number, kind in enumerate(page.devices)}
    found, y = [text(0, 14, "Who holds what", "title")], 30.0
    for first in range(0, len(page.stages), PER_ROW):
        row = page.stages[first : first + PER_ROW]
        height = max(_height(stage, width) for stage in row)
        for place, stage in enumerate(row):
            x = place * (width + ARROW)
            found.append(rect(x, y, width, height, style="box"))
            found.extend(_box(stage, x + PADDING, y, width - 2 * PADDING, colors))
            if stage.number + 1 < len(page.stages) and place + 1 < PER_ROW:
                found.append(_arrow(x + width, y + height / 2))
        y += height + 16
    return Drawing(y - 16, "".join(found))


def _box(stage: StageAccount, x: float, y: float, width: float, colors: dict[str, str]) -> Iterator[str]:
    yield text(x, y + 22, f"stage {stage.number}", "title")
    yield text(x, y + 40, stage.holds, "strong small")
    yield text(x, y + 56, devices_in_words(stage.groups), "small")
    top = y + HEAD
    for words in wrapped(_how(stage), width):
        yield text(x, top, words, "faint small")
        top += LINE
    for group in stage.groups:
        yield text(x, top + 10, _share(group), "faint small")
        top += 18
        across = _across(group, width)
        for number in range(_drawn(group, width)):
            left = x + number % across * (_replica_width(group) + 8)
            here = top + number // across * (CELL + 9)
            yield rect(left - 2, here - 2, _replica_width(group) + 1, CELL + 4, style="frame")
            for rank in range(min(group.ranks_per_replica, MAX_RANKS)):
                yield rect(left + rank * (CELL + SPACE), here, CELL, CELL, colors[group.kind])
        top += _rows(group, width) * (CELL + 9)
        more = group.num_replicas - _drawn(group, width)
        if more:
            yield text(x, top + 8, f"and {more:,} more like these", "faint small")
            top += 16


def _how(stage: StageAccount) -> str:
    words = [
        f"tensor parallel {stage.tensor_parallel}" if stage.tensor_parallel > 1 else "",
        f"ZeRO {stage.zero}" if stage.zero else "",
        f"recompute {stage.recompute}" if stage.recompute != "none" else "",
        "optimizer on the host" if stage.offload else "",
    ]
    return ", ".join(filter(None, words)) or "the whole stage on each device"


def _share(group: DeviceGroup) -> str:
    replicas = f"{group.num_replicas} replicas, each" if group.num_replicas > 1 else "one replica,"
    return f"{replicas} {group.num_micro_batches:,} micro-batches of {group.micro_batch}"


def _replica_width(group: DeviceGroup) -> float:
    return min(group.ranks_per_replica, MAX_RANKS) * (CELL + SPACE)


def _across(group: DeviceGroup, width: float) -> int:
    return max(1, int(width // (_replica_width(group) + 8)))


def _rows(group: DeviceGroup, width: float) -> int:
    return -(-_drawn(group, width) // _across(group, width))


def _drawn(group: DeviceGroup, width: float) -> int:
    return min(group.num_replicas, MAX_ROWS * _across(group, width))


def _height(stage: StageAccount, width: float) -> float:
    inner = width - 2 * PADDING
    rows = sum(
        18 + _rows(group, inner) * (CELL + 9) + (16 if group.num_replicas > _drawn(group, inner) else 0)
        for group in stage.groups
    )
    return HEAD + LINE * len(wrapped(_how(stage), inner)) + rows + 2


def _arrow(x: float, y: float) -> str:
    return line([(x + 3, y), (x + ARROW - 4, y)], "frame") + line(
        [(x + ARROW - 10, y - 5), (x + ARROW - 4, y), (x + ARROW - 10, y + 5)], "frame"
    )
