"""Others whose algorithms drive an evaluator, loaded when they are used."""
