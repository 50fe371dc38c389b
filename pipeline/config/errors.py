"""What can be wrong with a config: all of it, in one error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config.keys import Key, format_key


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, at ``file:line`` or in an override. The key is empty for the config as a whole."""

    where: str
    key: Key
    what: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, format_key(self.key), self.what) if part)


class ConfigError(Exception):
    """The config cannot be used. ``problems`` holds everything that was found; nothing was started."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problems" if len(self.problems) > 1 else "1 problem"
        super().__init__(
            "\n".join([f"the config cannot be used ({count})", *(f"  {problem}" for problem in self.problems)])
        )
