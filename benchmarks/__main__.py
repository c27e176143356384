"""`python -m benchmarks`: compare ffverbs with its peers on this host."""

import sys

from benchmarks.compare_local import main

if __name__ == "__main__":
    sys.exit(main())
