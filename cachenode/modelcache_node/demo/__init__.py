"""The demonstration: cache nodes and a small store on one machine."""
