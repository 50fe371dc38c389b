"""Where a replica's rows may lie besides memory; see README.md."""
