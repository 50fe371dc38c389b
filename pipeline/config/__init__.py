"""Configs: composed from YAML files and overrides, validated by pydantic models of those who use them."""

from pipeline.config.errors import ConfigError, Problem
from pipeline.config.faults import validate_part
from pipeline.config.finding import shipped_names
from pipeline.config.loading import Loaded, load, schema
from pipeline.config.tree import Origins

__all__ = ["ConfigError", "Loaded", "Origins", "Problem", "load", "schema", "shipped_names", "validate_part"]
