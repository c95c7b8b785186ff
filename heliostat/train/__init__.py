"""Running a plan: the user's task, the executor, checkpoints, and the launcher on Ray Train."""
