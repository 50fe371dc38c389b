"""The command line itself; what the commands do is tested where it is done, and end to end in tests/e2e."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import __version__
from pipeline.cli import main

COMMANDS = ("run", "check", "show", "stages", "rows", "export", "verify", "replica", "bench", "schema")


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, "--help") == 0
    assert "Usage" in capsys.readouterr().out


def test_help_and_stages_load_nothing_heavy() -> None:
    code = (
        "import sys\nfrom pipeline.cli import main\n"
        "for words in (['--help'], ['run', '--help'], ['stages']):\n"
        "    try: main(words)\n    except SystemExit as left: assert not left.code, left.code\n"
        "heavy = [name for name in ('torch', 'numpy', 'numba', 'pyarrow', 'omegaconf') if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out.strip() == f"rowstream {__version__}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "name a config"),
        (["check", "run.seed=1"], "name a config"),
        (["run", "quickstart", "--resume", "--overwrite"], "give one of them"),
        (["export", "x", "--out", "f.npz"], "--table T"),
        (["export", "x", "--out", "f.npz", "--table", "t", "--dense"], "--dense"),
        (["replica", "x", "--table", "t"], "--export"),
        (["replica", "x", "--lookup", "1"], "--table"),
        (["replica", "x", "--folow"], "'--folow' is neither an option nor an id"),
        (["replica", "x", "a=b"], "'a=b' is neither an option nor an id"),
        (["replica", "x", "--table", "t", "--lookup", "-1", "-x"], "'-x' is neither an option nor an id"),
        (["replica", "x", "--until-end"], "--follow"),
        (["rows", "x", "--table", "t", "--ids", "1", "two"], "'two' is neither an option nor an id"),
        (["stages", "prefech"], "did you mean 'prefetch'"),
        (["bench", "streming"], "did you mean 'streaming'"),
        (["trian"], "trian"),
        (["run", "quickstart", "--over"], "--over"),
    ],
)
def test_wrong_usage_is_2_and_says_what_would_do(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_debug_counts_wherever_it_stands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWSTREAM_DEBUG", "0")
    assert call("stages", "prefech", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_early_sees_no_complaint() -> None:
    script = f"{sys.executable} -m pipeline stages prefetch | head -n 1"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        ["bash", "-c", script], cwd=root, capture_output=True, text=True, env={**os.environ}, check=False
    )
    assert done.stdout.startswith("prefetch")
    assert done.stderr == ""


def test_the_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("bench", "--list") == 0
    assert "streaming" in capsys.readouterr().out


def test_without_a_checkout_bench_says_where_the_benchmarks_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tools.bench.main", None)
    assert call("bench") == 2
    assert "come with a checkout" in " ".join(capsys.readouterr().err.split())
