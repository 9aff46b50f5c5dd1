"""A real Ganeti cluster in namespaces, and what it makes of us."""
