"""From live optimizers and schedulers, traced or not, to constructions."""
