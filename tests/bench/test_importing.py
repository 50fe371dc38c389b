"""The bench of imports measures what came in and went out again."""

from __future__ import annotations

from tools.bench.importing import FORMS, measure


def test_it_has_a_figure_for_each_form_and_way() -> None:
    rows = measure(5000)
    assert [row.what for row in rows] == [f"{way}, {form}" for form in FORMS for way in ("import", "export")]
    assert all(row.measured.endswith(" rows/s") for row in rows)
