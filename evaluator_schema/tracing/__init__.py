"""Recording: what was called, with what, in which order, and what was changed since."""
