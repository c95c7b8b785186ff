"""The experiment file: what it may say, what is said about its mistakes, and the schema that editors see."""

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from heliostat.errors import ConfigError
from heliostat.experiment.config import json_schema, load_experiment
from heliostat.experiment.sections import ExperimentConfig
from heliostat.tune.space import Choice, LogUniform, RandInt, Uniform
from heliostat.values import digest

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "configs").glob("*.yaml"))
QUICKSTART = ROOT / "configs" / "quickstart.yaml"

NOT_A_NAME = "must be at most 64 letters, digits, '.', '_' and '-', and begin with a letter or a digit"
VALID = """\
name: small
data:
  prepare: code/steps.py:prepare
  features: code/steps.py:FEATURES
  label: late
train:
  task: some.package:Task
  params: {width: 128, dropout: 0.1}
  epochs: 4
  global_batch: 2048
  lr: 2e-3
tune:
  trials: 6
  epochs: 3
  space:
    train.lr: {loguniform: [5e-4, 0.01]}
  metric: auc
  mode: max
register:
  model: small
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "steps.py").touch()


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.write_text(text)
    return path


def mistakes(text: str, *overrides: str) -> list[str]:
    try:
        load_experiment(write("a.yaml", text), overrides)
    except ConfigError as error:
        return list(error.mistakes)
    return []


def test_a_small_file_is_completed_by_defaults() -> None:
    experiment = load_experiment(write("a.yaml", VALID))
    config = experiment.config
    assert (config.seed, config.store, config.cluster.address, config.cluster.cpus_per_device) == (
        0,
        Path(".heliostat"),
        "local",
        1,
    )
    assert (config.tracking.uri, config.plan.data_parallel, config.registry.alias) == (None, None, "champion")
    assert (config.train.lr, config.train.weight_decay, config.smoke.tolerance) == (0.002, 0.0, 1e-5)
    assert experiment.origin("train.lr") == "a.yaml:11:3"
    assert experiment.origin("tune.space.train.lr.loguniform.1") == "a.yaml:16:35"
    assert experiment.origin("register.model") == "a.yaml:20:3"
    assert experiment.origin("register.alias") == experiment.origin("seed") == "default"


def test_overrides_and_what_a_file_extends_are_remembered() -> None:
    Path("base").mkdir()
    write("base/all.yaml", VALID.replace("code/", "../code/"))
    experiment = load_experiment(
        write("a.yaml", "extends: base/all.yaml\ntrain: {epochs: 9}"), ["train.lr=1e-2", "seed=7"]
    )
    assert (experiment.config.train.epochs, experiment.config.train.lr, experiment.config.seed) == (9, 0.01, 7)
    assert experiment.origin("train.epochs") == "a.yaml:2:9"
    assert experiment.origin("train.lr") == "--set train.lr"
    assert experiment.origin("name") == "base/all.yaml:1:1"


def test_files_are_named_relative_to_where_they_are_mentioned() -> None:
    Path("base").mkdir()
    write("base/all.yaml", VALID.replace("code/", "../code/"))
    write("base/own.py", "")
    config = load_experiment(
        write("base/a.yaml", "extends: all.yaml\ntrain: {task: own.py:Task}"), ["data.features=code/steps.py:F"]
    ).config
    assert config.data.prepare == f"{Path.cwd()}/code/steps.py:prepare"
    assert config.data.features == f"{Path.cwd()}/code/steps.py:F"
    assert config.train.task == f"{Path.cwd()}/base/own.py:Task"
    assert load_experiment(Path("base/all.yaml")).config.train.task == "some.package:Task"


def test_a_plan_file_is_named_relative_to_where_it_is_mentioned() -> None:
    Path("base").mkdir()
    write("base/plan.json", "{}")
    write("base/all.yaml", VALID.replace("code/", "../code/") + "plan: {file: plan.json}\n")
    assert load_experiment(Path("base/all.yaml")).config.plan.file == f"{Path.cwd()}/base/plan.json"
    (found,) = mistakes(VALID + "plan: {file: plan.json}\n")
    assert found == f"a.yaml:21:8: plan.file: there is no file {Path.cwd()}/plan.json"


def test_a_plan_from_a_file_has_nothing_pinned() -> None:
    write("plan.json", "{}")
    (found,) = mistakes(VALID + "plan: {file: plan.json, num_stages: 2, zero: 0}\n")
    assert found.startswith("a.yaml:21:1: plan: a plan from a file is run as it is, but num_stages, zero is pinned")


def test_how_to_train() -> None:
    train = load_experiment(
        write("a.yaml", VALID),
        ["train.precision=bf16", "train.clip_norm=1", "train.early_stop={patience: 3}", "train.verify=true"],
    ).config.train
    assert (train.precision, train.clip_norm, train.compile, train.verify) == ("bf16", 1.0, False, True)
    assert train.early_stop is not None
    assert train.early_stop.patience == 3
    (found,) = mistakes(VALID, "train.early_stop={patience: 3, patince: 2}")
    assert "unknown key (did you mean 'patience'?)" in found


def test_the_four_domains_of_a_search() -> None:
    space = (
        "{train.lr: {loguniform: [1e-4, 1]}, train.params.dropout: {uniform: [0, 1]}, "
        "train.params.width: {randint: [1, 9]}, train.weight_decay: {choice: [0, 0.1]}}"
    )
    config = load_experiment(write("a.yaml", VALID), [f"tune.space={space}"]).config
    assert config.tune.space == {
        "train.lr": LogUniform(loguniform=(1e-4, 1.0)),
        "train.params.dropout": Uniform(uniform=(0.0, 1.0)),
        "train.params.width": RandInt(randint=(1, 9)),
        "train.weight_decay": Choice(choice=(0, 0.1)),
    }


def test_an_experiment_is_frozen_pickles_and_speaks_the_names_of_the_file() -> None:
    experiment = load_experiment(write("a.yaml", VALID))
    with pytest.raises(ValidationError, match="frozen"):
        experiment.config.seed = 3  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(experiment)) == experiment
    dump = experiment.config.model_dump(mode="json")
    assert dump["register"] == {"model": "small", "alias": "champion"}
    assert ExperimentConfig.model_validate_json(json.dumps(dump)) == experiment.config
    assert digest(experiment.config) == digest(ExperimentConfig.model_validate_json(json.dumps(dump)))


def test_all_mistakes_come_at_once_in_the_order_of_the_file() -> None:
    text = VALID.replace("epochs: 4", "ephocs: 4").replace("mode: max", "mode: maxx").replace("lr: 2e-3", "lr: fast")
    text = (
        text.replace("width: 128", "width: 1, width: 2")
        .replace("model: small", "model: a/b")
        .replace("label: late\n", "lable: late\n")
    )
    assert mistakes(text, "serve.port=0", "data.prepare=code/step.py:prepare") == [
        "a.yaml:2:1: data.label: is missing",
        "a.yaml:5:3: data.lable: unknown key (did you mean 'label'?)",
        "a.yaml:6:1: train.epochs: is missing",
        "a.yaml:8:22: train.params.width: is written twice; the first is at a.yaml:8:12",
        "a.yaml:9:3: train.ephocs: unknown key (did you mean 'epochs'?)",
        'a.yaml:11:3: train.lr: must be a number, got "fast"',
        "a.yaml:18:3: tune.mode: must be 'max' or 'min', got \"maxx\" (did you mean 'max'?)",
        "a.yaml:20:3: register.model: " + NOT_A_NAME + ', got "a/b"',
        f"--set data.prepare: data.prepare: there is no file {Path.cwd()}/code/step.py (did you mean 'steps.py'?)",
        "--set serve.port: serve.port: must be at least 1, got 0",
    ]


def test_data_without_features_has_no_label_either() -> None:
    bare = VALID.replace("  features: code/steps.py:FEATURES\n  label: late\n", "")
    config = load_experiment(write("a.yaml", bare)).config
    assert (config.data.features, config.data.label) == (None, None)
    assert mistakes(bare, "data.label=late") == [
        "--set data.label: data.label: goes with data.features, which is missing"
    ]
    assert mistakes(VALID.replace("  label: late\n", "")) == ["a.yaml:2:1: data.label: is missing"]


def test_no_trials_need_no_space() -> None:
    space = "  epochs: 3\n  space:\n    train.lr: {loguniform: [5e-4, 0.01]}\n"
    bare = VALID.replace(space, "")
    assert mistakes(bare) == ["a.yaml:12:1: tune.space: is missing"]
    assert load_experiment(write("a.yaml", bare), ["tune.trials=0"]).config.tune.space == {}


def test_a_cluster_to_emulate_is_a_file_and_is_started_here() -> None:
    Path("clusters").mkdir()
    write("clusters/four.yaml", "")
    emulating = VALID + "cluster: {emulate: clusters/four.yaml}\n"
    assert load_experiment(write("a.yaml", emulating)).config.cluster.emulate == f"{Path.cwd()}/clusters/four.yaml"
    assert mistakes(emulating, "cluster.address=auto") == [
        "a.yaml:21:11: cluster.emulate: goes with cluster.address local, not with auto"
    ]


def test_an_empty_file_lacks_every_required_key() -> None:
    assert mistakes("") == [f"a.yaml:1:1: {key}: is missing" for key in ("name", "data", "train", "tune", "register")]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name=", "name: must be text, got null"),
        ("name=a b", f"name: {NOT_A_NAME}"),
        (f"name={'x' * 65}", f"name: {NOT_A_NAME}"),
        ("seed=-1", "seed: must be at least 0, got -1"),
        ("seed=4294967296", "seed: must be less than 4294967296, got 4294967296"),
        ("seed=true", "seed: must be a whole number, got true"),
        ("store=3", "store: must be text, got 3"),
        ("sede=3", "sede: unknown key (did you mean 'seed'?)"),
        ("zzz=3", "zzz: unknown key; known: name, seed, store, cluster, tracking, data, train, plan, tune, register,"),
        ("cluster.address=somewhere", "cluster.address: must be 'local', 'auto' or 'host:port', got \"somewhere\""),
        ("cluster.cpus_per_device=0.5", "cluster.cpus_per_device: must be a whole number, got 0.5"),
        ("tracking.uri=mlruns", "tracking.uri: must be a URI, such as"),
        ("data.label=''", 'data.label: must not be empty, got ""'),
        ("data.options=[1]", "data.options: must be a mapping of keys to values, got [1]"),
        ("data.prepare=steps.py", "data.prepare: must be 'package.module:name' or './file.py:name', got \"steps.py\""),
        ("train=3", "train: must be a mapping of keys to values, got 3"),
        ("train.epochs='4'", 'train.epochs: must be a whole number, got "4"'),
        ("train.lr=0", "train.lr: must be greater than 0.0, got 0"),
        ("train.lr=.inf", "train.lr: must be a finite number, got Infinity"),
        ("train.max_restarts=-1", "train.max_restarts: must be at least 0, got -1"),
        ("plan.micro_batch=0", "plan.micro_batch: must be greater than 0, got 0"),
        ("register.alias=v2", 'register.alias: is a name that the model registry keeps for itself, got "v2"'),
        ("serve.port=65536", "serve.port: must be at most 65535, got 65536"),
        ("tune.space={}", "tune.space: must not be empty"),
        ("tune.trials=-1", "tune.trials: must be at least 0, got -1"),
        ("cluster.emulate=elsewhere.yaml", "cluster.emulate: there is no file "),
        (f"train.lr='{'9' * 80}'", f'train.lr: must be a number, got "{"9" * 56}...'),
        ("train.precision=fp16", "train.precision: must be 'fp32' or 'bf16', got \"fp16\""),
        ("train.clip_norm=0", "train.clip_norm: must be greater than 0.0, got 0"),
        ("plan.zero=4", "plan.zero: must be 0, 1, 2 or 3, got 4"),
        (
            "plan.schedule=2f1b",
            "plan.schedule: must be 'none', 'gpipe', '1f1b', 'interleaved' or 'zero-bubble', got \"2f1b\"",
        ),
        ("train.early_stop.patience=0", "train.early_stop.patience: must be greater than 0, got 0"),
    ],
)
def test_a_wrong_value_is_explained_in_plain_words(override: str, message: str) -> None:
    (found,) = mistakes(VALID, override)
    path = override.partition("=")[0]
    assert found.startswith(f"--set {path}: {message}")


@pytest.mark.parametrize(
    ("space", "messages"),
    [
        (
            "{train.learning: {uniform: [0, 1]}}",
            ["train.learning: is not a value that can be searched (did you mean 'train.lr'?)"],
        ),
        (
            "{train.params.widht: {randint: [1, 2]}}",
            ["train.params.widht: is not a value that can be searched (did you mean 'train.params.width'?)"],
        ),
        (
            "{seed: {randint: [1, 2]}}",
            ["seed: is not a value that can be searched; known: train.lr, train.weight_decay, train.params.width"],
        ),
        ("{train.lr: 3}", ["train.lr: must be one of uniform: [low, high],"]),
        ("{train.lr: {uniforn: [1, 2]}}", ["train.lr: must be one of uniform: [low, high],"]),
        ("{train.lr: {uniform: [1, 2], choice: [1]}}", ["train.lr: must be one of uniform: [low, high],"]),
        ("{train.lr: {uniform: 3}}", ["train.lr.uniform: must be a list, got 3"]),
        ("{train.lr: {uniform: [1]}}", ["train.lr.uniform: must have 2 values"]),
        ("{train.lr: {uniform: [1, 2, 3]}}", ["train.lr.uniform: must have at most 2 values, got [1, 2, 3]"]),
        ("{train.lr: {uniform: [2, 1]}}", ["train.lr.uniform: must be [low, high] with low below high, got [2, 1]"]),
        ("{train.lr: {uniform: [-1, 1]}}", ["train.lr.uniform.0: must be greater than 0.0, got -1"]),
        ("{train.lr: {loguniform: [0, 1]}}", ["train.lr.loguniform.0: must be greater than 0.0, got 0"]),
        (
            "{train.weight_decay: {loguniform: [0, 1]}}",
            ["train.weight_decay.loguniform.0: must be greater than 0.0, got 0"],
        ),
        (
            "{train.lr: {choice: [0.1, fast, -2]}}",
            ['train.lr.choice.1: must be a number, got "fast"', "train.lr.choice.2: must be greater than 0.0, got -2"],
        ),
        (
            "{train.params.width: {randint: [1, 2.5]}}",
            ["train.params.width.randint.1: must be a whole number, got 2.5"],
        ),
        ("{train.params.width: {choice: []}}", ["train.params.width.choice: must not be empty, got []"]),
    ],
)
def test_a_search_space_is_checked_against_the_experiment(space: str, messages: list[str]) -> None:
    found = mistakes(VALID.replace("space:\n    train.lr: {loguniform: [5e-4, 0.01]}", f"space: {space}"))
    assert len(found) == len(messages)
    for line, message in zip(found, messages, strict=True):
        place, _, rest = line.partition(": ")
        assert place.startswith("a.yaml:15:")
        assert rest.startswith(f"tune.space.{message}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "a", "x.py:y", "train.lr", "max"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["lr", "train.lr", "uniform"]), inner),
    max_leaves=5,
)
PATHS = ["", "data", "train", "tune", "tune.space", "tune.space.train.lr", "train.params", "train.lr", "serve.port"]


@given(st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(["", "lr", "epochs", "zzz"]), JSON), max_size=3))
def test_whatever_is_written_is_accepted_or_explained(changes: list[tuple[str, str, Any]]) -> None:
    overrides = [f"{'.'.join(filter(None, (path, key))) or 'name'}={json.dumps(value)}" for path, key, value in changes]
    for mistake in mistakes(VALID, *overrides):
        assert re.match(r"(a\.yaml:\d+:\d+|--set \S+): \S+: .+", mistake)


def test_the_next_step_is_a_command() -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment(write("a.yaml", ""))
    assert caught.value.next_step == "correct them, then: heliostat validate a.yaml"


def test_loading_brings_nothing_heavy_and_none_of_the_users_code() -> None:
    Path("code/steps.py").write_text("raise SystemExit(3)")
    code = (
        "import sys; from pathlib import Path; from heliostat.experiment.config import load_experiment; "
        f"load_experiment(Path({str(write('a.yaml', VALID))!r})); "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"ray", "torch", "mlflow", "pandas", "numpy", "pyarrow", "steps"} & set(loaded)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_file_is_valid_and_points_at_the_schema(path: Path) -> None:
    load_experiment(path)
    header = path.read_text().splitlines()[0]
    assert header == "# yaml-language-server: $schema=schema/experiment.json"
    jsonschema.Draft202012Validator(json_schema()).validate(yaml.safe_load(path.read_text()))


def test_the_quickstart_shows_every_key_but_the_store() -> None:
    experiment = load_experiment(QUICKSTART)
    keys = {
        f"{name}.{key}" if isinstance(section, dict) else name
        for name, section in experiment.config.model_dump().items()
        for key in (section if isinstance(section, dict) else [name])
    }
    assert keys - set(experiment.origins) == {"store"}


def test_the_committed_schema_is_the_schema() -> None:
    """The frozen contract of the file. After a deliberate change: heliostat schema > configs/schema/experiment.json."""
    assert json.loads((ROOT / "configs" / "schema" / "experiment.json").read_text()) == json_schema()


def test_the_schema_agrees_with_the_loader_on_mistakes() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    data = yaml.safe_load(VALID.replace("2e-3", "0.002").replace("5e-4", "0.0005"))
    assert validator.is_valid(data)
    assert validator.is_valid({"extends": "base.yaml", "train": {"lr": 0.1}})
    for wrong in (
        {**data, "sede": 1},
        {**data, "train": {**data["train"], "epochs": "4"}},
        {**data, "train": {"lr": 0.1}},
        {**data, "tune": {**data["tune"], "space": {"train.lr": {"uniform": [1, 2, 3]}}}},
        {**data, "tune": {**data["tune"], "space": {"train.lr": {"normal": [1, 2]}}}},
        {"train": {"lr": 0.1}},
    ):
        assert not validator.is_valid(wrong), wrong


def leaves(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, part in schema.get("properties", {}).items():
        yield f"{path}.{name}", part
    for name, part in schema.get("$defs", {}).items():
        yield from leaves(part, name)


def test_every_key_has_a_description_for_editors() -> None:
    schema = json_schema()
    bare = [path for path, part in leaves(schema) if not (part.get("description") or "$ref" in part)]
    assert bare == []
    assert all(part["description"] for part in schema["$defs"].values())


def test_no_field_hides_a_method_of_its_model() -> None:
    names = set(ExperimentConfig.model_fields)
    assert not {name for name in names if hasattr(BaseModel, name)}
