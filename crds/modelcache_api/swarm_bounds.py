"""How many nodes are told of each other. Without what objects need: a plain pull loads it too."""

#: Revisions that a node is told about others of: those that it lacks. Arbitrary; at 5 KB each.
MAX_SWARMS = 64
#: Of one revision: who a node asks for chunks, and who share the origin.
MAX_NEIGHBOURS = 32
MAX_ORIGIN_GROUP = 32
