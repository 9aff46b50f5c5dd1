"""Tests of snf_core and of its plugins."""
