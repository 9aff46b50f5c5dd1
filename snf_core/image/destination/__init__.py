"""Built-in destinations: where a disk's bytes go."""
