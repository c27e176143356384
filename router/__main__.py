"""`python -m router` is `ffverbs-router`."""

from router.cli import main

main()
