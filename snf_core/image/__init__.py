"""Deployment: an image becomes an instance's customised disk."""
