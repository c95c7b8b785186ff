"""A user's package: the next letter of a verse."""
