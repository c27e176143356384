"""Write the C source of an extension module (cffi, API mode) from a public header: ffverbs._ffv, router._wire.

The declarations that cffi needs are derived from ffv.h itself: system headers are left out, the C preprocessor runs
over the rest, and what cffi's parser does not take (static inline functions, attributes, assertions) is removed.
Integer macros become `#define NAME ...`, whose value cffi takes from the compiler. In API mode the compiler checks
every struct and prototype against the real header again, so a slip here ends in a failed build, never in wrong calls.

Keep ffv.h parsable: plain structs, unions, enums, prototypes, integer macros; types of <stdint.h>, <stddef.h>,
<stdbool.h> and those declared in PROLOGUE. Code between `#ifndef FFV_CDEF` and `#endif` is not shown to cffi.
"""

import argparse
import re
import shlex
import subprocess
from pathlib import Path

import cffi

MODULE = "ffverbs._ffv"

# Types of system headers that ffv.h may name: cffi asks the compiler for what `...` leaves open.
PROLOGUE = """
typedef int... time_t;
struct timespec { time_t tv_sec; long tv_nsec; ...; };
struct sockaddr { ...; };
"""

INTEGER = re.compile(r"[-~(]*\s*(0[xX][0-9a-fA-F]+|\d+)[uUlL]*")
INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*([<\"])([^>\"]+)[>\"].*$", re.M)


def inline_own_headers(path: Path) -> str:
    """Return the header's text with the includes of its own folder pasted in and all others dropped."""
    seen: set[Path] = set()

    def read(header: Path) -> str:
        if header in seen:
            return ""
        seen.add(header)

        def paste(match: re.Match[str]) -> str:
            own = path.parent / Path(match.group(2)).name
            return read(own) if own.exists() and "ffverbs" in (match.group(2) + str(header)) else ""

        return INCLUDE.sub(paste, header.read_text(encoding="utf-8"))

    return read(path)


def preprocess(cc: list[str], text: str, *flags: str) -> str:
    """Run the C preprocessor over `text` and return its output without line markers."""
    command = [*cc, "-E", "-P", "-x", "c", "-std=gnu11", "-DFFV_CDEF", "-D__attribute__(x)=", "-D__extension__=",
               "-D_Static_assert(...)=", "-Dstatic_assert(...)=", *flags, "-"]
    return subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout


def drop_inline_functions(text: str) -> str:
    """Remove the definitions of static inline functions; their bodies are nothing that cffi reads."""
    out = []
    position = 0
    for match in re.finditer(r"\b(?:static\s+inline|inline\s+static)\b[^{};]*\{", text):
        if match.start() < position:
            continue
        out.append(text[position:match.start()])
        depth, position = 1, match.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            position += 1
    return "".join(out) + text[position:]


def integer_macros(cc: list[str], text: str) -> list[str]:
    """Return the names of the header's object-like macros that stand for one integer (or one expression of them)."""
    own = set(re.findall(r"^[ \t]*#[ \t]*define[ \t]+([A-Za-z]\w*)[ \t]+\S", text, re.M))
    defined = re.findall(r"^#define (\w+) (.+)$", preprocess(cc, text, "-dM"), re.M)
    return sorted(name for name, body in defined if name in own and INTEGER.match(body))


def derive_cdef(cc: list[str], header: Path) -> str:
    """Return the declarations of `header` in the form that cffi.FFI.cdef() takes."""
    text = inline_own_headers(header)
    body = drop_inline_functions(preprocess(cc, text))
    body = re.sub(r";(\s*;)+", ";", re.sub(r"^\s*;", "", body, flags=re.M))
    body = re.sub(r'extern\s+"C"\s*\{', "", body)
    macros = "".join(f"#define {name} ...\n" for name in integer_macros(cc, text))
    prologue = "".join(line + "\n" for line in PROLOGUE.splitlines()
                       if (match := re.search(r"(timespec|sockaddr|time_t)", line))
                       and (match.group(1) in body or (match.group(1) == "time_t" and "timespec" in body)))
    return prologue + macros + body


def main() -> None:
    """Command line: write the generated C file (or with --print-cdef the derived declarations, for a look)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cc", default="cc", help="C compiler, with its fixed arguments")
    parser.add_argument("--header", type=Path, required=True)
    parser.add_argument("--module", default=MODULE, help="its full name")
    parser.add_argument("--include", default="", help="a header of our own for the generated file")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--print-cdef", action="store_true")
    args = parser.parse_args()
    cdef = derive_cdef(shlex.split(args.cc), args.header)
    if args.print_cdef:
        print(cdef)
        return
    ffi = cffi.FFI()
    ffi.cdef(cdef)
    own = f'#include "{args.include}"\n' if args.include else ""
    public = f"#include <time.h>\n#include <sys/socket.h>\n#include <ffverbs/{args.header.name}>\n"
    ffi.set_source(args.module, public + own)
    ffi.emit_c_code(str(args.output))


if __name__ == "__main__":
    main()
