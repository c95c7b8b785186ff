"""A plan for people: what there is to say of it, in words, as tables and as a page with pictures. Pure."""
