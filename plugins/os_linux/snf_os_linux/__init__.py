"""Linux guests: how they are recognised and customised."""
