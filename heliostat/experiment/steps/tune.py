"""Step `tune`: a sweep over the search space; the best trial competes with the main training run."""

from heliostat.experiment.step import StepContext, StepResult
