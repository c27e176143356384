"""The mlx5 driver (see `ffverbs.providers`)."""
