"""Finding recorded parameters and modules in a model that wraps, renames or splits them."""
