"""Which trained model is registered."""

from heliostat.experiment.candidates import Candidate, best


def candidate(source: str, auc: float) -> Candidate:
    metrics = {"auc": auc, "loss": 1 - auc}
    return Candidate(source=source, params={}, metrics=metrics, checkpoint="", plan="", run_id="")


def test_the_best_by_the_metric_in_its_direction() -> None:
    models = [candidate("train", 0.7), candidate("trial 1", 0.9), candidate("trial 2", 0.8)]
    assert best(models, "auc", "max").source == "trial 1"
    assert best(models, "auc", "min").source == "train"
    assert best(models, "loss", "min").source == "trial 1"


def test_the_main_run_wins_among_equals() -> None:
    assert best([candidate("train", 0.7), candidate("trial 1", 0.7)], "auc", "max").source == "train"
