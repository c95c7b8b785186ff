"""`Held` tensors on disk by torch DCP: what each rank writes of them, meeting over it, writing, reading. No commits."""
