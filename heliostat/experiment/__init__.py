"""The spine: an experiment file becomes steps, steps become a run with lineage."""
