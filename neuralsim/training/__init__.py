"""Training: one loop for every model, one file per phase."""
