"""The rounds of a step: in each the same samples go through all stages, divided by the replicas of each. Pure."""

from collections import Counter
from collections.abc import Iterator

from heliostat.placement.strategy import ReplicaShare, Strategy


def samples_in(share: ReplicaShare, number: int) -> int:
    """Samples of a replica in round `number`: its micro-batch, fewer in its last one."""
    return min(share.micro_batch, max(0, share.num_samples - number * share.micro_batch))


def disagreements(strategy: Strategy) -> Iterator[tuple[int, str]]:
    """The stages that do not have as many samples in every round as the first one, and where they differ first."""
    shares = [Counter(stage.replicas) for stage in strategy.stages]
    for stage in range(1, len(shares)):
        for number in range(strategy.num_micro_batches):
            own, other = (sum(samples_in(one, number) * n for one, n in shares[at].items()) for at in (stage, 0))
            if own != other:
                yield stage, f"take {own} samples together in round {number}, those of stage 0 take {other}"
                break
