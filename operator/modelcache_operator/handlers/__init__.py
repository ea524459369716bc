"""What the operator watches: events into the work queue."""
