"""A user's package: what the tests package, register and serve."""
