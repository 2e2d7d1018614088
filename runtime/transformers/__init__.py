"""Training and evaluating by transformers' Trainer. It is imported when an evaluator with one is bound."""
