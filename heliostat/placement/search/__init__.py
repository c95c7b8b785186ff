"""The search for the best plan: `search.search` asks it `Constraints` and gets an `Outcome`. Pure."""
