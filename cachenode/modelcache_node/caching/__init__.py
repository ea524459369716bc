"""What an agent does: fetches, capacity, leases, proofs."""
