"""Others whose algorithms drive an evaluator, one file each, loaded when they are used."""
