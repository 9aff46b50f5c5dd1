"""The built-in network setups, one module each."""
