"""Windows guests, for snf_core."""
