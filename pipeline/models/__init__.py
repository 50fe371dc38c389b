"""The dense side: models, their optimizer, schedules and metrics.

Nothing is re-exported here, so that options can be read without loading torch, which must wait until the process has
pinned its environment.
"""
