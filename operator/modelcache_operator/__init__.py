"""The operator: reconciles ModelCache and CacheNode objects."""
