import time
from pathlib import Path

from heliostat.train import telemetry
from heliostat.train.telemetry import EpochRecord, StepRecord, Tail, Writer


def step(number: int, loss: float = 0.5) -> StepRecord:
    return StepRecord(
        step=number,
        loss=loss,
        gradient_norm=1.0,
        num_elements=4.0,
        passes_s=0.5,
        wait_s=0.125,
        sync_s=0.25,
        update_s=0.0625,
        time=0.0,
    )


def test_records_come_back_in_order(tmp_path: Path) -> None:
    path = telemetry.file_of(tmp_path, 3)
    assert path == tmp_path / "telemetry" / "rank-3.jsonl"
    epoch = EpochRecord(epoch=1, step=2, metrics={"auc": 0.7}, time=1.0)
    with Writer(path) as writer:
        for record in (step(1), step(2), epoch):
            writer.write(record)
    assert telemetry.read(path) == [step(1), step(2), epoch]
    assert telemetry.epochs(path) == [epoch]


def test_a_file_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "later.jsonl")
    assert list(tail.poll()) == []
    with Writer(tmp_path / "later.jsonl") as writer:
        writer.write(step(1))
    assert list(tail.poll()) == [step(1)]
    assert list(tail.poll()) == []


def test_half_a_line_waits_for_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "rank-0.jsonl"
    line = step(2).model_dump_json().encode() + b"\n"
    path.write_bytes(step(1).model_dump_json().encode() + b"\n" + line[:20])
    tail = Tail(path)
    assert list(tail.poll()) == [step(1)]
    with path.open("ab") as file:
        file.write(line[20:])
    assert list(tail.poll()) == [step(2)]


def test_a_line_torn_by_a_kill_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "rank-0.jsonl"
    path.write_text(step(1).model_dump_json() + "\n" + step(2).model_dump_json()[:25])
    with Writer(path) as writer:
        writer.write(step(2))
    assert telemetry.read(path) == [step(1), step(2)]


def test_a_repeated_step_counts_as_it_went_last(tmp_path: Path) -> None:
    path = tmp_path / "rank-0.jsonl"
    with Writer(path) as writer:
        for record in (step(1), step(2), step(3), step(2, loss=0.4)):
            writer.write(record)
    assert telemetry.steps(path) == [step(1), step(2, loss=0.4), step(3)]


def test_records_reach_readers_while_the_writer_lives(tmp_path: Path) -> None:
    path = tmp_path / "rank-0.jsonl"
    with Writer(path) as writer:
        writer.write(step(1))
        assert telemetry.read(path) == []
        time.sleep(telemetry.FLUSH_EVERY_S + 0.1)
        writer.write(step(2))
        assert telemetry.read(path) == [step(1), step(2)]


def test_waiting_is_not_computing() -> None:
    assert step(1).compute_s == 0.5 - 0.125 + 0.0625
    assert step(1).step_s == 0.5 + 0.25 + 0.0625
