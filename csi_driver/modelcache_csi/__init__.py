"""The CSI node plugin: publishes cached models into pods."""
