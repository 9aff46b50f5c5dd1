"""Network renderers: one module for each way in which a Linux guest configures its NICs."""
