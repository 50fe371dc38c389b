"""What the command line is made of: arguments, failures and the pages on stages."""

from pipeline.console.arguments import UsageError, parse_ids, split_config
from pipeline.console.failures import guarded
from pipeline.console.stage_pages import list_stages, show_stage

__all__ = ["UsageError", "guarded", "list_stages", "parse_ids", "show_stage", "split_config"]
