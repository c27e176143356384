"""The efa driver (see `ffverbs.providers`)."""
