"""The page at ``/``: how the replica stands, for people. Pure; no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final
from urllib.parse import quote

STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); column-gap: 3rem; }
p { margin: .3rem 0; } .yes, .no { font-weight: 600; }
.yes { color: #18794e; color: light-dark(#18794e, #4cc38a); } .no { color: #cd2b31; color: light-dark(#cd2b31, #ff8589); }
table { border-collapse: collapse; } td, th { padding: .15rem 1.2rem .15rem 0; text-align: left; vertical-align: top; }
th { font-weight: normal; opacity: .7; overflow-wrap: normal; } .number { text-align: right; overflow-wrap: normal; }
td { font-variant-numeric: tabular-nums; } code { font-size: .95em; } a { color: inherit; }
footer { margin-top: 2rem; opacity: .7; font-size: .9em; }
"""
EVERY_S: Final = 5


def render(info: Mapping[str, Any], why_not_ready: str | None, source: str) -> str:
    """HTML of ``answers.info``, reloaded every few seconds."""
    state, kind, why = ("ready", "yes", "") if why_not_ready is None else ("not ready", "no", f": {why_not_ready}")
    counters = ((name.replace("_", " "), _count(name, count)) for name, count in info["counters"].items())
    sections = [
        _section("State", _state(info)),
        _section("Freshness of steps", _freshness(info["freshness_ms"])),
        _tables(info["tables"]),
        _section("Counters", counters, kind="number"),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{state}: {escape(source)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{EVERY_S}"><style>{STYLE}</style></head><body>\n'
        f"<h1>Rowstream replica</h1>\n<p>of <code>{escape(source)}</code></p>\n"
        f'<p><span class="{kind}">{state}</span>{escape(why)}</p>\n<main>\n{"".join(sections)}</main>\n'
        '<footer><a href="/tables">/tables</a> &middot; <code>/rows/TABLE?ids=1,2</code> &middot; '
        '<a href="/metrics">/metrics</a> &middot; <a href="/healthz">/healthz</a> &middot; '
        f'<a href="/readyz">/readyz</a> &middot; reloads every {EVERY_S} s</footer>\n</body></html>\n'
    )


def _state(info: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    lag, (generation, cut) = info["lag"], info["position"]
    yield "step of the trainer", f"{info['step']:,}"
    yield "position", f"cut {cut:,} of generation {generation:,}" if generation else "no cut yet"
    yield "run", "ended" if info["ended"] else "no end seen"
    if lag["waiting"]:
        yield "lag", "waiting for a snapshot cut"
    else:
        yield "lag", f"{_many(lag['cuts'], 'cut')}, {_many(lag['steps'], 'step')}"
    if lag["ahead"]:
        yield "ahead", f"{_many(lag['ahead'], 'step')}, of a trainer whose stream was lost and that comes here again"
    if lag["unsent"] is not None:
        yield "best effort", "each row is one of the trainer's; all together are no step's end"
        yield "unsent rows", f"{lag['unsent']:,}; the oldest change {_age(lag['unsent_s'])} old"
    yield "age of the cut", "no cut yet" if lag["age_s"] is None else _age(lag["age_s"])
    yield "rows held", f"{info['rows']:,}"


def _freshness(fresh: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name in ("p50", "p99", "max"):
        yield name, "no step yet" if fresh[name] is None else f"{fresh[name]:,.1f} ms"
    yield "steps", f"{fresh['steps']:,}"
    yield "from before it began", _many(fresh["earlier_steps"], "step")


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _age(seconds: float) -> str:
    """In the longest unit of which it is two at least."""
    for unit, unit_s in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def _count(name: str, count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if name == "bytes" and count >= 1e6 else f"{count:,}"


def _section(title: str, lines: Iterable[tuple[str, str]], *, kind: str = "text") -> str:
    rows = "".join(f'<tr><th>{escape(name)}</th><td class="{kind}">{escape(text)}</td></tr>' for name, text in lines)
    return f"<section><h2>{escape(title)}</h2>\n<table>{rows}</table></section>\n"


def _tables(tables: Mapping[str, Mapping[str, int]]) -> str:
    if not tables:
        return "<section><h2>Tables</h2>\n<p>none yet: no header frame has come</p></section>\n"
    rows = "".join(
        f'<tr><td><a href="/rows/{quote(name, safe="")}?ids=1,2">{escape(name)}</a></td>'
        f'<td class="number">{one["rows"]:,}</td><td class="number">{one["dim"]:,}</td></tr>'
        for name, one in tables.items()
    )
    head = '<tr><th>name</th><th class="number">rows</th><th class="number">weights a row</th></tr>'
    return f"<section><h2>Tables</h2>\n<table>{head}{rows}</table></section>\n"
