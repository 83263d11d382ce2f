"""Episodes and latents on disk, training clips, and readers and writers for other people's formats."""
