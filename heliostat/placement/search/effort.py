"""How much is tried, by the size of the question. Pure."""

from typing import NamedTuple


class Effort(NamedTuple):
    """Numbers that trade seconds for quality; none of them depends on the machine."""

    num_skeletons: int
    """That are cut."""
    num_guessed: int
    """Plans that are put in order by the closed form on their very links."""
    num_passes: int
    """Passes of a pipeline simulated for the finalists."""
    num_rescheduled: int
    """Of the best plans, that are tried under every schedule."""
    num_improved: int
    """Of the best plans, that are improved by small changes."""
    num_changes: int
    """Tried on each of them."""


WITHOUT_END = 1 << 62
EVERYTHING = Effort(100, 400, WITHOUT_END, 2, 6, 400)
"""Where all pipelines are grown."""
BY_DEVICES = (
    (128, Effort(160, 120, 200_000, 2, 1, 100)),
    (768, Effort(300, 150, 400_000, 4, 2, 200)),
    (WITHOUT_END, Effort(400, 150, 1_500_000, 4, 2, 200)),
)
"""Elsewhere, up to so many devices."""


def effort_for(num_devices: int, *, is_small: bool) -> Effort:
    """What is tried of `num_devices`.

    Args:
        num_devices: of the cluster.
        is_small: whether everything can be.
    """
    return EVERYTHING if is_small else next(effort for most, effort in BY_DEVICES if num_devices <= most)
