"""Listing sources and granting access to their objects; runs where the credentials are."""
