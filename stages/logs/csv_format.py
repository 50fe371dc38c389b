"""How a text log is written: the options that every reader of CSV shares."""

from __future__ import annotations

from pydantic import Field, model_validator

from pipeline.flow.stage import StageOptions
from stages.logs.decompression import Compression


class CsvFormat(StageOptions):
    """A text log: one sample per line. A line break inside quotes is not supported and is refused by name."""

    separator: str = Field(",", min_length=1, description="between two columns; any text, `::` or a tab among others")
    header: bool = Field(True, description="the first line of each file names its columns")
    columns: tuple[str, ...] | None = Field(None, description="names of all columns, in order, when there is no header")
    quote: str | None = Field(
        '"', description="character around a field that holds separators; null: quotes are ordinary text"
    )
    missing: tuple[str, ...] = Field(("",), description="texts that mean that there is no value")
    compression: Compression = Field("auto", description="auto looks at the first bytes of each file")

    @model_validator(mode="after")
    def names_are_known(self) -> CsvFormat:
        if self.header == (self.columns is not None):
            raise ValueError("give `columns` exactly when `header` is false: one of them names the columns")
        if self.columns is not None and len(set(self.columns)) != len(self.columns):
            raise ValueError(f"`columns` names a column twice: {list(self.columns)}")
        if self.quote is not None and (len(self.quote) != 1 or not self.quote.isascii()):
            raise ValueError(f"`quote` is one ASCII character or null, not {self.quote!r}")
        return self

    @property
    def quote_character(self) -> str | None:
        """Quotes mean nothing beside a separator that is not one ASCII character."""
        return self.quote if len(self.separator) == 1 and self.separator.isascii() else None
