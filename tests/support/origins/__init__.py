"""Real servers of each kind of source, and how a test speaks to them."""
