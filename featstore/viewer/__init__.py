"""``featstore view``: a store in the browser, read-only, on this machine alone."""

__all__ = ["PORT"]

PORT = 8757
"""The usual port."""
