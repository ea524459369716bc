"""What the operator decides: pure functions of what it has read."""
