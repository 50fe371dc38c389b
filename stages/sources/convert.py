"""From an Arrow table to samples: column by column, and with every bad row found, named and set apart.

A row is bad when an id is no int64, a dense value or weight is no finite number, ids and weights differ in number, or
a label or time is missing or no number. numpy and Arrow do the work; only bad rows are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rows.buckets import bucket_ids
from pipeline.rows.hashing import hash_text
from stages.items import FeatureIds, Float32s, Int64s
from stages.logs.tables import LogTable, SkippedLine
from stages.sources.arrow import as_text, drop_nulls, finite, is_text, to_numpy
from stages.sources.columns import RAW, DenseColumns, FeatureColumn, LabelColumn, Mapping
from stages.sources.problems import Problems, cast
from stages.sources.samples import Samples, offsets_of


class Converter:
    """Makes samples of tables. ``missing`` are the texts that mean no value, where a column comes as text."""

    def __init__(self, mapping: Mapping, missing: tuple[str, ...]) -> None:
        self._mapping, self._missing = mapping, pa.array(list(missing), pa.string())

    def convert(self, source: LogTable, most_bad: int) -> tuple[Samples, list[SkippedLine]]:
        """Samples of the good rows, and the bad lines in order, those of ``source`` included.

        Stops looking for more once it knows of more than ``most_bad``. ``before`` counts good rows.
        """
        table, lines_n, bad = source.table, source.lines_n, list(source.skipped)
        while True:
            problems = Problems(max(most_bad - len(bad), 0) + 1)
            samples = self._samples(table, problems)
            if samples is not None or len(bad) > most_bad:
                break
            good_n = problems.good(table.num_rows)
            bad += [SkippedLine(0, int(lines_n[row]), what) for row, what in problems.rows.items()]
            table, lines_n = table.filter(pa.array(good_n)), lines_n[good_n]
        if samples is None:
            samples = self._samples(table.slice(0, 0), Problems(1))
            assert samples is not None
            lines_n = lines_n[:0]
        bad.sort(key=lambda line: line.line)
        before = np.searchsorted(lines_n, [line.line for line in bad])
        return samples, [SkippedLine(int(b), line.line, line.what) for b, line in zip(before, bad, strict=True)]

    def _samples(self, table: pa.Table, problems: Problems) -> Samples | None:
        """None when ``problems`` were met."""
        mapping = self._mapping
        features = {name: self._bags(table, feature, problems) for name, feature in mapping.features.items()}
        dense = [self._dense(table, group, problems) for group in mapping.dense]
        labels_b = self._labels(table, problems)
        times_b = None if mapping.time is None else self._required(table, mapping.time, pa.int64(), problems)
        if problems.rows:
            return None
        return Samples(
            num_samples=table.num_rows,
            features=features,
            dense_bd=np.concatenate(dense, axis=1) if dense else np.zeros((table.num_rows, 0), np.float32),
            labels_b=labels_b,
            times_b=times_b,
        )

    def _column(self, table: pa.Table, name: str) -> pa.Array:
        """The column as one array; texts that mean nothing are nulls."""
        column = table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        return self._without_missing(column)

    def _without_missing(self, values: pa.Array) -> pa.Array:
        if not is_text(values.type):
            return values
        values = as_text(values)
        return pc.if_else(pc.is_in(values, value_set=self._missing), pa.scalar(None, values.type), values)

    def _bags(self, table: pa.Table, feature: FeatureColumn, problems: Problems) -> FeatureIds:
        values, lengths_b = self._flat(self._column(table, feature.column), feature.separator)
        rows_n = np.repeat(np.arange(table.num_rows), lengths_b)
        weights = None if feature.weights is None else self._weights(table, feature, lengths_b, problems)
        named = [name for name in feature.identities if name != RAW]
        along = [self._along(table, feature, name, "int64", lengths_b, problems) for name in named]
        rule = feature.metadata
        if rule is not None:
            along += [self._along(table, feature, name, rule.dtype, lengths_b, problems) for name in rule.columns]
        beside: list[np.ndarray | None] = [weights, *along]
        if values.null_count:
            values, lengths_b, beside = drop_nulls(values, rows_n, lengths_b, beside)
            rows_n = np.repeat(np.arange(table.num_rows), lengths_b)
        if feature.hash is not None:
            raw_n = hash_text(as_text(values))
        else:
            advice = "is no int64 id; set `hash: xxh64` if the ids are text"
            raw_n = to_numpy(cast(values, pa.int64(), feature.column, advice, rows_n, problems), np.int64)
        ids_n = raw_n if feature.buckets is None else bucket_ids(raw_n, feature.buckets)
        if problems.rows:
            return FeatureIds(ids_n, offsets_of(lengths_b))
        found = dict(zip(named, beside[1:], strict=False))
        identities = [raw_n if name == RAW else found[name] for name in feature.identities]
        return FeatureIds(ids_n, offsets_of(lengths_b), beside[0], _lines(identities), _lines(beside[1 + len(named) :]))

    def _flat(self, column: pa.Array, separator: str | None) -> tuple[pa.Array, Int64s]:
        """All values in a row, and how many each row has."""
        if separator is not None and is_text(column.type):
            column = pc.split_pattern(as_text(column), separator)
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            lengths_b = to_numpy(pc.fill_null(pc.list_value_length(column), 0), np.int64)
            return self._without_missing(pc.list_flatten(column)), lengths_b
        return column.drop_null(), to_numpy(pc.cast(column.is_valid(), pa.int8()), np.int64)

    def _weights(self, table: pa.Table, feature: FeatureColumn, lengths_b: Int64s, problems: Problems) -> Float32s:
        assert feature.weights is not None
        return self._along(table, feature, feature.weights, "float32", lengths_b, problems, "weights")

    def _along(
        self,
        table: pa.Table,
        feature: FeatureColumn,
        name: str,
        dtype: str,
        lengths_b: Int64s,
        problems: Problems,
        what: str = "values",
    ) -> np.ndarray:
        """One number per id of the feature from another column, those of missing ids included."""
        column = self._column(table, name)
        if feature.separator is None and not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            column = pc.if_else(
                pa.array(lengths_b > 0), column, pa.scalar(None, column.type)
            )  # a number without an id is no bag
        values, found_b = self._flat(column, feature.separator)
        wrong = np.flatnonzero(found_b != lengths_b)
        for row in wrong[: problems.limit]:
            problems.add(row, f"{lengths_b[row]} ids in {feature.column!r} and {found_b[row]} {what} in {name!r}")
        rows_n = np.repeat(np.arange(table.num_rows), found_b)
        if dtype == "float32":
            return finite(values, name, rows_n, problems).astype(np.float32)
        for at in np.flatnonzero(to_numpy(values.is_null(), np.bool_))[: problems.limit]:
            problems.add(rows_n[at], f"column {name!r} has no value for an id")
        values, kind = values.fill_null("0" if is_text(values.type) else 0), pa.from_numpy_dtype(np.dtype(dtype))
        return to_numpy(cast(values, kind, name, f"is no {dtype}", rows_n, problems), np.dtype(dtype).type)

    def _dense(self, table: pa.Table, group: DenseColumns, problems: Problems) -> Float32s:
        out_bd = np.empty((table.num_rows, len(group.columns)), dtype=np.float32)
        for d, name in enumerate(group.columns):
            column = self._column(table, name)
            absent_b = to_numpy(column.is_null(), np.bool_)
            if group.missing is None:
                for row in np.flatnonzero(absent_b)[: problems.limit]:
                    problems.add(row, f"column {name!r} has no value; set `missing` to allow that")
            rows_n = np.flatnonzero(~absent_b)
            x_n = finite(column.drop_null(), name, rows_n, problems)
            if group.transform == "log1p":
                x_n = np.sign(x_n) * np.log1p(np.abs(x_n))
            with np.errstate(over="ignore"):
                scaled_n = (x_n * group.scale).astype(np.float32)
            for at in np.flatnonzero(~np.isfinite(scaled_n))[: problems.limit]:
                problems.add(rows_n[at], f"column {name!r} is {x_n[at] * group.scale}, which float32 does not hold")
            out_bd[:, d] = 0.0 if group.missing is None else group.missing
            if len(scaled_n) == len(rows_n):
                out_bd[rows_n, d] = scaled_n
        return out_bd

    def _labels(self, table: pa.Table, problems: Problems) -> Float32s:
        rule = self._mapping.label
        if not isinstance(rule, LabelColumn):
            return np.ones(table.num_rows, dtype=np.float32)
        values_b = self._required(table, rule.column, pa.float64(), problems)
        if rule.at_least is not None:
            return (values_b >= rule.at_least).astype(np.float32)
        for row in np.flatnonzero(~((values_b >= 0) & (values_b <= 1)))[: problems.limit]:
            problems.add(
                row,
                f"label {values_b[row]} in {rule.column!r} is not in 0..1; `at_least` makes a label of any number",
            )
        return values_b.astype(np.float32)

    def _required(self, table: pa.Table, name: str, dtype: pa.DataType, problems: Problems) -> np.ndarray:
        """A number in each row; [0] when there are problems."""
        column = self._column(table, name)
        rows_n = np.arange(table.num_rows)
        if column.null_count:
            for row in np.flatnonzero(to_numpy(column.is_null(), np.bool_))[: problems.limit]:
                problems.add(row, f"column {name!r} has no value")
            return np.zeros(0)
        if dtype == pa.float64():
            return finite(column, name, rows_n, problems)
        return to_numpy(cast(column, dtype, name, f"is no {dtype}", rows_n, problems), np.int64)


def _lines(columns: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Columns side by side [n, columns]; None where there are none."""
    return np.stack([column for column in columns if column is not None], axis=1) if columns else None
