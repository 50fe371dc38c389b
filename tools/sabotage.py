"""Breaks the product on purpose, in every way on the committed lists, and shows that each is caught.

python -m tools.sabotage [words of a sabotage's name]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(words: list[str]) -> int:
    """Run the tests that apply the sabotages; returns pytest's exit code, 0 when all were caught."""
    selection = "sabotage" + (f" and ({' and '.join(words)})" if words else "")
    command = [sys.executable, "-m", "pytest", "-v", "--no-header", "-p", "no:warnings", "-k", selection, "tests"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
