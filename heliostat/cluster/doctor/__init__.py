"""Is the cluster healthy, and is it the one that it should be? Pure."""
