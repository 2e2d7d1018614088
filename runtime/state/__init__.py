"""What goes on when a model changes: optimizer state carried and sliced, new parameters joining."""
