"""A plan applied to a single-device model: cut into stages, divided, and run in the order of its schedule."""
