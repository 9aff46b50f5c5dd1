"""Figures, printed and never judged by a timed test."""
