"""Checkpoints of the row log, their reader, and exports: see README.md of the room above."""
