"""Finds the file that a name in a config or on the command line means."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

# Beside the package, in a checkout as in an installed wheel.
SHIPPED = Path(__file__).resolve().parents[2] / "configs"
SUFFIXES = (".yaml", ".yml")


def find_file(name: str, beside: Path) -> Path | None:
    """The file ``name`` means: relative to the directory ``beside``, else a shipped one; None when there is none.

    ``.yaml`` and, for shipped files, a leading ``configs/`` may be left out.
    """
    return next((path for path in _candidates(name, beside) if path.is_file()), None)


def not_found(name: str, beside: Path) -> str:
    """The sentence for a name that means no file."""
    shipped = shipped_names()
    close = get_close_matches(name.removeprefix("configs/").removesuffix(".yaml"), shipped, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else "."
    return (
        f"there is no config {name!r} in {display(beside)} and none is shipped by that name{meant} "
        f"Shipped: {', '.join(shipped) or 'none'}"
    )


def shipped_names() -> list[str]:
    """The names of the configs that come with the package: those at the top; the parts they are made of lie below."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def display(path: Path) -> str:
    """The path as a message shows it: relative where it lies in the current directory."""
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)


def _candidates(name: str, beside: Path) -> Iterator[Path]:
    for directory, relative in ((beside, name), (SHIPPED, name.removeprefix("configs/"))):
        path = directory / relative
        if path.suffix in SUFFIXES:
            yield path
        else:
            yield from (path.with_name(path.name + suffix) for suffix in SUFFIXES if path.name)
            yield path
