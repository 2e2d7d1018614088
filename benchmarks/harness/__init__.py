"""What all benchmarks share: taking turns, the record of a run, and how it is shown."""
