"""One evaluator, many models: trials as they are packed, run, accounted for and reported."""
