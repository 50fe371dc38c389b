from __future__ import annotations

import json

import pytest
from pydantic import BaseModel, Field

from pipeline.config import ConfigError, Loaded, Origins, load, schema, validate_part
from tests.config.conftest import Write
from tests.config.samples import Sample, Table

JOB = """\
    run:
      dir: runs/${run.seed}
      seed: 7
    tables:
      user: {dim: 8}
      item:
        optimizer: {kind: adagrad, lr: 0.5}
    stages:
      source: {files: [a, b]}
      lookup:
"""


@pytest.fixture
def job(write: Write) -> str:
    write("job.yaml", JOB)
    return "job.yaml"


def refused(job: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load([job], overrides, Sample)
    return [str(problem) for problem in caught.value.problems]


def test_settings_are_validated_and_know_their_origins(job: str) -> None:
    loaded = load([job], ["run.seed=9"], Sample)
    assert str(loaded.settings.run.dir) == "runs/9"
    assert loaded.settings.tables["user"].dim == 8
    assert loaded.origin("run.seed") == "override"
    assert loaded.origin("run.dir") == "job.yaml:2"
    assert loaded.origin("tables.user.dim") == "job.yaml:5"
    assert loaded.origin("run.steps") == loaded.origin("device") == "default"


def test_the_tree_is_the_effective_config_in_plain_values(job: str) -> None:
    tree = load([job], [], Sample).tree
    assert tree["run"] == {"dir": "runs/7", "steps": None, "seed": 7}
    assert tree["tables"]["item"] == {"dim": 64, "optimizer": {"kind": "adagrad", "lr": 0.5, "eps": 1e-8}}
    assert json.loads(json.dumps(tree)) == tree


def test_what_is_shown_can_be_loaded_again(job: str, write: Write) -> None:
    loaded = load([job], ["run.seed=9"], Sample)
    shown = loaded.describe()
    write("shown.yaml", "{}")
    write("shown.yaml", shown)
    assert load(["shown.yaml"], [], Sample).tree == loaded.tree
    lines = {line.split("#")[0].strip(): line.split("# ")[-1] for line in shown.splitlines()}
    assert lines["seed: 9"] == "override"
    assert lines["device: auto"] == "default"
    assert lines["files: [a, b]"] == "job.yaml:9"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("run.sede=1", "override: run.sede: unknown key 'sede'; did you mean 'seed'? Known keys here: dir, steps, seed"),
        ("rum.seed=1", "override: rum: unknown key 'rum'; did you mean 'run'?"),
        ("seed=1", "override: seed: unknown key 'seed'; did you mean 'run.seed'?"),
        ("tables.user.Dim=1", "tables.user.Dim: unknown key 'Dim'; did you mean 'dim'?"),
        ("tables.item.optimizer.esp=1", "tables.item.optimizer.esp: unknown key 'esp'; did you mean 'eps'?"),
        ("splits=[{dim: 4}, {dmi: 4}]", "splits[1].dmi: unknown key 'dmi'; did you mean 'dim'? Known keys here: dim, op"),
        ("run.steps=many", "override: run.steps: found 'many'; wanted a valid integer"),
        ("run.steps=0", "run.steps: found 0; wanted greater than or equal to 1 (steps: batches until the end)"),
        ("device=cdua", "device: found 'cdua' (did you mean 'cuda'?); wanted 'auto', 'host' or 'cuda'"),
        ("tables.item.optimizer.kind=adagrat", "optimizer.kind: found 'adagrat' (did you mean 'adagrad'?); one of 'sgd', 'ad"),
        ("tables.user.optimizer={kind: sgd, eps: 1}", "unknown key 'eps'. Known keys here: kind, lr"),
        ("tables.user.optimizer={lr: 1}", "tables.user.optimizer.kind: the key is missing; one of 'sgd', 'adagrad'"),
        ("every=[1]", "every: found [1]; wanted a valid integer, or found [1]; wanted a valid string"),
        ("tables=", "tables: found None; wanted a valid dictionary (tables: embedding tables)"),
    ],
)  # fmt: skip
def test_a_wrong_key_or_value_is_named_with_what_would_do(job: str, override: str, said: str) -> None:
    (problem,) = refused(job, override)
    assert said in problem


def test_a_problem_in_a_file_names_its_line(write: Write) -> None:
    write("wrong.yaml", "tables:\n  user:\n    optimiser: {kind: sgd}\n")
    (problem,) = refused("wrong.yaml")
    assert problem.startswith("wrong.yaml:3: tables.user.optimiser: unknown key 'optimiser'; did you mean 'optimizer'?")


def test_a_missing_key_is_named_at_its_place(write: Write) -> None:
    write("empty.yaml", "run: {seed: 1}")
    (problem,) = refused("empty.yaml")
    assert problem.endswith("tables: the key is missing (tables: embedding tables)")


def test_all_problems_are_reported_together(job: str) -> None:
    problems = refused(job, "run.sede=1", "run.steps=x", "tables.user.dim=1", "devise=host")
    assert [problem.split(": ")[1] for problem in problems] == ["run.steps", "run.sede", "tables.user.dim", "devise"]


def test_a_models_own_check_speaks_for_the_config_as_a_whole(write: Write) -> None:
    write("none.yaml", "tables: {}")
    assert refused("none.yaml")[0].endswith("no table is named")


def test_a_part_validates_at_its_key_path() -> None:
    origins = Origins({("tables", "user"): "job.yaml:4"})
    assert validate_part(Table, {"dim": 8}, "tables.user", origins).dim == 8
    with pytest.raises(ConfigError, match=r"job\.yaml:4: tables\.user\.dmi: unknown key 'dmi'; did you mean 'dim'\?"):
        validate_part(Table, {"dmi": 8}, "tables.user", origins)


def test_others_report_their_problems_with_origins(job: str) -> None:
    loaded: Loaded[Sample] = load([job], [], Sample)
    error = loaded.error(
        [
            ("stages.source.files", "no such file"),
            ("", "nothing to do"),
            ("stages.source.files.1", "empty"),
            ("a..b", "odd"),
        ]
    )
    assert [str(problem) for problem in error.problems] == [
        "job.yaml:9: stages.source.files: no such file",
        "job.yaml:1: nothing to do",
        "job.yaml:9: stages.source.files[1]: empty",
        "job.yaml:1: [a..b]: odd",
    ]


def test_the_schema_knows_descriptions_and_lets_files_be_parts() -> None:
    described = schema(Sample)
    assert described["properties"]["tables"]["description"] == "embedding tables"
    assert "include" in described["properties"]
    assert "required" not in json.dumps(list(described))
    assert described["additionalProperties"] is False


def test_tuples_aliases_and_optional_parts_are_walked() -> None:
    class Inner(BaseModel, extra="forbid"):
        rate: int = Field(1, alias="rate-hz")

    class Outer(BaseModel, extra="forbid"):
        pair: tuple[Inner, int] = (Inner(), 1)
        many: tuple[Inner, ...] = ()
        maybe: Inner | None = None

    tree = {"pair": [{"rate": 1}, 2], "many": [{}, {"rat": 1}], "maybe": {"rate-hs": 3}}
    with pytest.raises(ConfigError) as caught:
        validate_part(Outer, tree, "", Origins({}))
    for problem, key in zip(caught.value.problems, ("pair[0].rate", "many[1].rat", "maybe.rate-hs"), strict=True):
        assert str(problem).startswith(key)
        assert "did you mean 'rate-hz'?" in str(problem)
