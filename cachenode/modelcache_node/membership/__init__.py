"""The agent's place in the cluster: what it is asked to keep, what it reports, who may call it."""
