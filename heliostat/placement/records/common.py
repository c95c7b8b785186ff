"""What the readers of all sources share. Pure."""

from collections.abc import Mapping

from heliostat.errors import DataError


def hyperparameters(table: Mapping[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    """Those of model `name`.

    Raises:
        DataError: `table` does not have it.
    """
    if name not in table:
        raise DataError(f"the hyperparameters of model '{name}' are not known", got=f"known: {', '.join(table)}")
    return table[name]


def shape_name(hidden: int, layers: int, heads: int, seq_len: int) -> str:
    """By which rows are divided into those to fit on and those to test on."""
    return f"h{hidden} L{layers} a{heads} s{seq_len}"


def equal_cuts(num_blocks: int, pipeline: int) -> list[tuple[int, int]]:
    """Equal numbers of layers; the embedding goes to the first stage and the head to the last."""
    layers = num_blocks - 2
    ends = [1 + layers * (number + 1) // pipeline for number in range(pipeline)]
    ends[-1] = num_blocks
    return list(zip([0, *ends[:-1]], ends, strict=True))
