"""Eager calls as machine code: a call that was seen often enough is followed step by step without running Python (see `sites`)."""
