"""Training and evaluating by Lightning. Lightning itself is imported when a module of it is bound."""
