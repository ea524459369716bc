"""The swarm's policy: who fetches which chunk from whom. Decides; moves nothing, knows no clock."""
