"""An evaluator on a model: reinitialised, trained within a budget, evaluated, given back as it was."""
