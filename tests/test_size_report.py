from __future__ import annotations

from pathlib import Path

import pytest

from tools.size_report import main


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("pipeline/rows", "stages", "cuda", "tools", "tests"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "README.md").write_text("what it is\n")
    (tmp_path / "pipeline/rows/spec.py").write_text("def f():\n" + "    x = 1\n" * 20)
    return tmp_path


def test_short_files_pass(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tree) == 0
    assert "1 functions: median 21 lines, longest 21, 1 past 20" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "text", "code"),
    [
        ("stages/long.py", "x = 1\n" * 300, 0),
        ("stages/long.py", "x = 1\n" * 301, 1),
        ("tests/long.py", "x = 1\n" * 600, 0),
        ("tests/long.py", "x = 1\n" * 601, 1),
        ("cuda/f.py", "def f():\n" + "    x = 1\n" * 60, 1),
        ("cuda/f.py", 'async def f():\n    """\n' + "    word\n" * 60 + '    """\n' + "    x = 1\n" * 59, 0),
        ("cuda/README.md", "a line\n" * 61, 1),
    ],
)
def test_what_passes_a_limit_fails(
    tree: Path, path: str, text: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / path).write_text(text)
    assert main(tree) == code
    assert (path.removesuffix(".md").removesuffix(".py") in capsys.readouterr().err) == bool(code)


def test_a_room_without_a_readme_fails(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "pipeline/rows/README.md").unlink()
    assert main(tree) == 1
    assert "pipeline/rows has no README.md" in capsys.readouterr().err
