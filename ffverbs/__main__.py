"""`python -m ffverbs PROGRAM ARGS`: runs a program written for pyverbs, unchanged, on this engine."""

import sys

import ffverbs
from ffverbs._run import run_code, run_module, run_path

_USAGE = """\
usage: python -m ffverbs PROGRAM [ARGS...]
       python -m ffverbs -m MODULE [ARGS...]
       python -m ffverbs -c CODE [ARGS...]

Runs a Python program with `pyverbs` standing for ffverbs, and everything else as if
the interpreter had been given PROGRAM, -m MODULE or -c CODE. The command `ffverbs`
shows devices, programs and speed.
"""


def main(arguments: list[str]) -> None:
    """Run what the command line says."""
    if not arguments:
        sys.stderr.write(_USAGE)
        raise SystemExit(2)
    first, rest = arguments[0], arguments[1:]
    if first in {"-h", "--help"}:
        sys.stdout.write(_USAGE)
    elif first in {"-V", "--version"}:
        print(f"ffverbs {ffverbs.__version__}")
    elif first in {"-m", "-c"}:
        if not rest:
            sys.stderr.write(f"python -m ffverbs: argument expected for the {first} option\n{_USAGE}")
            raise SystemExit(2)
        ffverbs.install_as_pyverbs()
        (run_module if first == "-m" else run_code)(rest[0], rest[1:])
    elif first.startswith("-"):
        sys.stderr.write(f"python -m ffverbs: unknown option {first}\n{_USAGE}")
        raise SystemExit(2)
    else:
        ffverbs.install_as_pyverbs()
        run_path(first, rest)


if __name__ == "__main__":
    main(sys.argv[1:])
