"""Searching: trials over a space of parameters."""
