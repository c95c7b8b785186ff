"""A cluster for people to look at: words, tables, pictures. Pure."""
