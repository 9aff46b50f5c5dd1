"""Tests that boot whole machines."""
