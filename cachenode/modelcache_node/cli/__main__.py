"""``python -m modelcache_node.cli``."""

from modelcache_node.cli.entry import main

main()
