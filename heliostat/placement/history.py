"""What earlier runs teach: block times where blocks have been run before. Pure.

The cost model knows a device type by four constants. Measured runs tell more about the very blocks they ran: how much
longer a layer took than estimated, and how much longer the embedding and the head. Blocks that run alike (same
operations, tensor-parallel degree, micro-batch, recomputation, device type) share that factor in models of any depth,
with any number of replicas and stages. It takes the place of a profile of single blocks, and is drawn towards one as
long as runs are few.
"""

from collections.abc import Sequence

import numpy as np

from heliostat.placement.efficiency import Efficiencies, speed_of
from heliostat.placement.fit import predict_runs
from heliostat.placement.measured_run import CATALOGUE, Run
from heliostat.placement.stage_time import BlockKey, block_key
from heliostat.placement.step_time import StepPrediction

NOISE, DOUBT = 0.01, 0.3
"""Relative error of one measured step, and standard deviation of a factor before anything was measured."""
STEPS = 3
"""Of Gauss and Newton: the step time is piecewise linear in the factors."""


def learn(runs: Sequence[Run], constants: Efficiencies) -> dict[BlockKey, float]:
    """For each block that `runs` ran, the factor on its estimated time that explains them best."""
    groups: dict[BlockKey, list[Run]] = {}
    for run in runs:
        groups.setdefault(_keys(run, constants)[0], []).append(run)
    found: dict[BlockKey, float] = {}
    for members in groups.values():
        found |= _learn_group(members, constants)
    return found


def predict_from_others(runs: Sequence[Run], constants: Efficiencies) -> list[StepPrediction]:
    """What is said of each run after all runs of other model shapes: nothing is learned from its own shape."""
    keys = [set(_keys(run, constants)) for run in runs]
    found: dict[int, StepPrediction] = {}
    for shape in sorted({run.shape for run in runs}):
        here = [at for at, run in enumerate(runs) if run.shape == shape]
        wanted = set[BlockKey]().union(*(keys[at] for at in here))
        others = [run for run, own in zip(runs, keys, strict=True) if run.shape != shape and own & wanted]
        learned = learn(others, constants)
        found |= dict(zip(here, predict_runs([runs[at] for at in here], constants, corrections=learned), strict=True))
    return [found[at] for at in range(len(runs))]


def _keys(run: Run, constants: Efficiencies) -> list[BlockKey]:
    """Of the run's blocks, that with most work first."""
    stage, speed = run.strategy.stages[0], speed_of(run.device, catalogue=CATALOGUE, efficiencies=constants)
    blocks = sorted(run.workload.blocks, key=lambda one: -one.forward_flops * one.count)
    micro = stage.replicas[0].micro_batch
    return [block_key(block, stage, micro, speed, run.strategy.execution) for block in blocks]


def _learn_group(runs: Sequence[Run], constants: Efficiencies) -> dict[BlockKey, float]:
    """Two factors, of the main block and of all others, by least squares with a prior at one."""
    keys = [_keys(run, constants) for run in runs]
    measured = np.log([run.measured_s for run in runs])

    def predicted(point: np.ndarray) -> np.ndarray:
        table = {key: float(np.exp(point[min(place, 1)])) for one in keys for place, key in enumerate(one)}
        return np.log([one.step_s for one in predict_runs(runs, constants, corrections=table)])

    point, nudge = np.zeros(2), 1e-3
    for _ in range(STEPS):
        here = predicted(point)
        slope = np.stack([(predicted(point + nudge * axis) - here) / nudge for axis in np.eye(2)], axis=1)
        left = np.concatenate([slope / NOISE, np.eye(2) / DOUBT])
        right = np.concatenate([(measured - here) / NOISE, -point / DOUBT])
        point = point + np.linalg.lstsq(left, right, rcond=None)[0]
    return {key: float(np.exp(point[min(place, 1)])) for one in keys for place, key in enumerate(one)}
