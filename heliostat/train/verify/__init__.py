"""Checks of a plan before its first step: the loss, its equality with one process, what is communicated, memory."""
