"""Disk images made for the tests: a whole Debian, and small synthetic ones."""
