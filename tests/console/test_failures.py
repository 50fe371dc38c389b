from __future__ import annotations

import pytest

from pipeline.config import ConfigError, Problem
from pipeline.console.failures import DEBUG, guarded
from pipeline.flow.errors import GraphError, StageError


def failing(error: BaseException) -> int:
    def work() -> int:
        raise error

    return guarded(work)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError([Problem("job.yaml:3", ("run", "sede"), "unknown key")]), 2, "job.yaml:3: run.sede: unknown key"),
        (GraphError("the graph is empty"), 2, "the graph is empty"),
        (StageError("train", "no batch"), 1, "stage 'train': no batch"),
        (OSError(28, "No space left on device", "x/1.seg"), 1, "No space left on device: 'x/1.seg'"),
        (ExceptionGroup("tasks", [GraphError("the graph is empty")]), 2, "the graph is empty"),
    ],
)
def test_known_errors_give_one_message_and_their_code(
    error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DEBUG, raising=False)
    assert failing(error) == code
    shown = capsys.readouterr().err
    assert shown.startswith("rowstream: ")
    assert said in shown
    assert "Traceback" not in shown


def test_an_unforeseen_error_says_where_and_how_to_see_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DEBUG, raising=False)
    assert failing(KeyError("lookahead")) == 1
    shown = capsys.readouterr().err
    assert "KeyError: 'lookahead'" in shown
    assert f"in {__file__}:" in shown
    assert "--debug" in shown


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEBUG, "1")
    assert failing(GraphError("the graph is empty")) == 2
    assert "Traceback" in capsys.readouterr().err


def test_brackets_in_a_message_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    failing(GraphError("files[0] and [bold]"))
    assert "files[0] and [bold]" in capsys.readouterr().err


def test_an_interrupt_is_130_and_success_is_its_own_code() -> None:
    assert failing(KeyboardInterrupt()) == 130
    assert guarded(lambda: 0) == 0
    assert guarded(lambda: 130) == 130
