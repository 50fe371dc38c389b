"""Whether the parts of an optimizer fit together, found out when it joins the others and not in the middle of a run."""

from __future__ import annotations

from pydantic import ValidationError

from pipeline.optim.errors import OptimizerError
from pipeline.optim.fields import Options
from pipeline.optim.spec import OptimizerSpec

TRIED_DIM = 8


def check_spec(spec: OptimizerSpec) -> None:
    """Raises OptimizerError that says which part of it does not fit, and what would."""
    for problem in _problems(spec):
        raise OptimizerError(f"optimizer {spec.name!r}: {problem}")


def _problems(spec: OptimizerSpec) -> list[str]:
    if ":" in spec.name or not spec.name:
        return ["its name is a word without a colon"]
    if not (isinstance(spec.options, type) and issubclass(spec.options, Options)):
        return ["its options are a subclass of pipeline.optim.Options"]
    fields = spec.options.model_fields
    if fields["kind"].default != spec.name:
        return [f'its options need the field `kind: Literal["{spec.name}"] = "{spec.name}"`']
    lacking = [name for name in spec.hyper if name not in fields and not hasattr(spec.options, name)]
    if spec.hyper[:1] != ("lr",) or lacking:
        return [f"hyper lists options, lr first; got {spec.hyper} of {', '.join(fields)}"]
    try:
        options = spec.options.model_validate({"kind": spec.name})
    except ValidationError as error:
        return [f"each of its options needs a default: {error.errors()[0]['loc']} has none"]
    columns = spec.state_columns(options, TRIED_DIM)
    widths = [column.width for column in columns]
    plain = all(column.dtype == "float32" and column.role == "state" for column in columns)
    if widths != sorted(widths, reverse=True) or not {*widths} <= {TRIED_DIM, 1} or not plain:
        return [f"its states are those of per_weight, then those of per_row; got {columns}"]
    return []
