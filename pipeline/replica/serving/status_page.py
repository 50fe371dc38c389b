"""The page at ``/``: how the replica stands, for people. Pure; no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: 0; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
p { margin: .3rem 0; } .yes, .no { font-weight: 600; } .yes { color: #18794e; } .no { color: #cd2b31; }
table { border-collapse: collapse; } td, th { padding: .15rem 1.2rem .15rem 0; text-align: left; font-weight: normal; }
th { opacity: .65; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: .95em; } footer { margin-top: 2rem; opacity: .65; font-size: .9em; }
"""
EVERY_S: Final = 5


def render(info: Mapping[str, Any], why_not_ready: str | None, source: str) -> str:
    """HTML of ``answers.info``, reloaded every few seconds."""
    ready = '<span class="yes">ready</span>'
    if why_not_ready is not None:
        ready = f'<span class="no">not ready</span>: {escape(why_not_ready)}'
    sections = [
        _section("State", _state(info)),
        _section("Freshness of steps", _freshness(info["freshness_ms"])),
        _tables(info["tables"]),
        _section("Counters", ((name.replace("_", " "), f"{count:,}") for name, count in info["counters"].items())),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Rowstream replica</title>'
        f'<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="{EVERY_S}">'
        f"<style>{STYLE}</style></head><body>\n<h1>Rowstream replica</h1>\n"
        f"<p>of <code>{escape(source)}</code>, {ready}</p>\n{''.join(sections)}"
        '<footer><a href="/tables">/tables</a> &middot; <code>/rows/TABLE?ids=1,2</code> &middot; '
        '<a href="/metrics">/metrics</a> &middot; <a href="/healthz">/healthz</a> &middot; '
        f'<a href="/readyz">/readyz</a> &middot; reloads every {EVERY_S} s</footer>\n</body></html>\n'
    )


def _state(info: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    lag, (generation, cut) = info["lag"], info["position"]
    yield "step of the trainer", f"{info['step']:,}"
    yield "position", f"cut {cut:,} of generation {generation}"
    yield "run", "ended" if info["ended"] else "no end seen"
    if lag["waiting"]:
        yield "lag", "waiting for a snapshot cut"
    else:
        yield "lag", f"{lag['cuts']:,} cuts, {lag['steps']:,} steps"
    if lag["unsent"] is not None:
        yield "best effort", "each row is one of the trainer's; all together are no step's end"
        yield "unsent rows", f"{lag['unsent']:,}; the oldest change {lag['unsent_s']:,.1f} s old"
    yield "age of the cut", "no cut yet" if lag["age_s"] is None else f"{lag['age_s']:,.1f} s"
    yield "rows held", f"{info['rows']:,}"


def _freshness(fresh: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name in ("p50", "p99", "max"):
        yield name, "no step yet" if fresh[name] is None else f"{fresh[name]:,.1f} ms"
    yield "steps", f"{fresh['steps']:,} (and {fresh['earlier_steps']:,} from before this replica began)"


def _section(title: str, lines: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in lines)
    return f"<h2>{escape(title)}</h2>\n<table>{rows}</table>\n"


def _tables(tables: Mapping[str, Mapping[str, int]]) -> str:
    if not tables:
        return "<h2>Tables</h2>\n<p>none yet: no header frame has come</p>\n"
    rows = "".join(
        f'<tr><td><a href="/rows/{escape(name)}?ids=1,2">{escape(name)}</a></td>'
        f'<td class="number">{one["rows"]:,}</td><td class="number">{one["dim"]}</td></tr>'
        for name, one in tables.items()
    )
    return f"<h2>Tables</h2>\n<table><tr><th>name</th><th>rows</th><th>weights a row</th></tr>{rows}</table>\n"
