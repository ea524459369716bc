"""The APIs an agent serves: translate requests and errors, decide nothing."""
