"""Models behind HTTP: packaging, registry, deployment."""
