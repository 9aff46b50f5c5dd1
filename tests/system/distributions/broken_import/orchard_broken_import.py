"""A source that cannot be imported."""

raise RuntimeError("the orchard is closed")
