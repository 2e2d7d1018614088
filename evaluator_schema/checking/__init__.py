"""What is wrong with a spec: signatures, types, and what cannot be shipped; all of it at once."""
