"""Hand-written stand-ins for what unit tests cannot have."""
