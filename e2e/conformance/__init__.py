"""The CSI conformance suite, run against the real plugin."""
