"""Room on the disk: reservations for fetches, evictions to make room, and the gate before them."""
