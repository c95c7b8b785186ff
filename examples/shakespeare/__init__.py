"""A language model on Shakespeare's plays: text in, tokens, a GPT, text out."""
