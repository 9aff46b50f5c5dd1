"""What runs inside the helper domain."""
