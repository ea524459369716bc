"""The command line ``modelcache``: one file per command, one place for exit codes."""

from modelcache_node.cli.entry import main

__all__ = ["main"]
