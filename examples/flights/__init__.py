"""Will this flight arrive late? The quickstart experiment's own code: data preparation, features, model."""
