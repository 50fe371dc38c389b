"""What a config holds of an optimizer: its options, told apart by ``kind``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Union

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic_core import PydanticKnownError, core_schema

from cuda.backend import UpdateRule
from pipeline.optim.errors import OptimizerError
from pipeline.optim.fields import Options
from pipeline.optim.registry import OPTIMIZERS, find_optimizer, optimizer_names
from pipeline.optim.spec import OptimizerSpec
from pipeline.rows.layout import RowLayout


class _ByKind:
    """Lets pydantic read the options of any optimizer, also of one that joined after the model that holds the field was made."""

    def alternatives(self) -> list[type[Options]]:
        """What ``pipeline.config`` looks for to name the keys that would have worked."""
        return _known()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        del source, handler
        dump = core_schema.plain_serializer_function_ser_schema(
            lambda options, info: options.model_dump(mode=info.mode), info_arg=True
        )
        return core_schema.no_info_plain_validator_function(_read, serialization=dump)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        del schema
        known = handler(_adapter(tuple(_known())).core_schema)
        pattern = {"type": "string", "pattern": ":", "description": "package.module:SPEC, an optimizer of your own"}
        own = {"type": "object", "properties": {"kind": pattern}, "required": ["kind"]}
        return {"anyOf": [known, own]}


OptimizerOptions = Annotated[Options, _ByKind()]


def layout_of(options: Options, dim: int, weights: str = "float32", states: str = "float32") -> RowLayout:
    """The row of a table of this dim under this optimizer: its weights, then the optimizer's states, of these dtypes.

    States that the optimizer keeps in float32 alone are our own bug here, see ``narrow_states``.
    """
    spec = spec_of(options)
    assert states == "float32" or spec.narrow_states, f"{spec.name} keeps its states in float32"
    return RowLayout(spec.columns(options, dim, weights, states))


def rule_of(options: Options) -> UpdateRule:
    """What a backend needs to update rows under this optimizer."""
    return spec_of(options).rule_of(options)


def spec_of(options: Options) -> OptimizerSpec:
    """The optimizer whose options these are. Raises OptimizerError for one that has not joined the others."""
    if options.kind not in OPTIMIZERS:
        raise OptimizerError(f"optimizer {options.kind!r} is not known; register_optimizer(its spec) first")
    return OPTIMIZERS[options.kind]


def _read(value: Any) -> Options:
    if isinstance(value, Options):
        return value
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if isinstance(kind, str):
        spec = find_optimizer(kind)
        if spec is None:
            names = ", ".join(map(repr, optimizer_names()))
            raise PydanticKnownError(
                "union_tag_invalid", {"discriminator": "'kind'", "tag": kind, "expected_tags": names}
            )
        value = {**value, "kind": spec.name}
    read: Options = _adapter(tuple(_known())).validate_python(value)
    return read


def _known() -> list[type[Options]]:
    return [spec.options for spec in OPTIMIZERS.values()]


@lru_cache(maxsize=4)
def _adapter(known: tuple[type[Options], ...]) -> TypeAdapter[Any]:
    by_kind: Any = Annotated[Union[known], Field(discriminator="kind")]  # noqa: UP007
    return TypeAdapter(by_kind)
