"""Runs that others measured, read from CSV files into what the cost model takes. Pure."""

from heliostat.placement.records.reader import read_runs

__all__ = ["read_runs"]
