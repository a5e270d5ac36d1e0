"""What the `greenroom` command does, one file per command."""
