"""Declarations for cffi are derived from a C header: what is kept, and what is removed."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import cffi
import pytest

ROOT = Path(__file__).resolve().parents[2]

HEADER = """
#ifndef SAMPLE_H
#define SAMPLE_H
#include <stdint.h>
#include <time.h>
#define SAMPLE_SIZE 0x10u
#define SAMPLE_MASK (1u << 3 | 1)
#define SAMPLE_TEXT "not a number"
#define SAMPLE_CALL(x) ((x) + 1)
#ifdef __cplusplus
extern "C" {
#endif
enum sample_kind { SAMPLE_A = 1, SAMPLE_B = SAMPLE_SIZE };
struct sample { uint64_t key; struct timespec when; } __attribute__((aligned(8)));
_Static_assert(sizeof(int) == 4, "int");
static inline int sample_twice(int x)
{
    if (x) { return 2 * x; }
    return 0;
}
int sample_do(struct sample *s, const char *name) __attribute__((warn_unused_result));
#ifndef FFV_CDEF
void sample_not_for_cffi(__builtin_va_list arguments);
#endif
#ifdef __cplusplus
}
#endif
#endif
"""


@pytest.fixture(name="builder", scope="module")
def builder_fixture() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_ffi", ROOT / "native" / "ffi" / "build_ffi.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_ffi"] = module
    spec.loader.exec_module(module)
    return module


def test_a_header_becomes_declarations(builder: ModuleType, tmp_path: Path) -> None:
    header = tmp_path / "sample.h"
    header.write_text(HEADER, encoding="ascii")
    cdef = builder.derive_cdef(["cc"], header)
    for kept in ("SAMPLE_SIZE ...", "SAMPLE_MASK ...", "enum sample_kind", "int sample_do(", "struct timespec"):
        assert kept in cdef
    for dropped in ("SAMPLE_TEXT", "SAMPLE_CALL", "twice", "not_for_cffi", "__attribute__", "Static_assert"):
        assert dropped not in cdef
    cffi.FFI().cdef(cdef)


def test_the_public_header_is_understood_whole(builder: ModuleType) -> None:
    path = ROOT / "native" / "include" / "ffverbs" / "ffv.h"
    cdef = builder.derive_cdef(["cc"], path)
    ffi = cffi.FFI()
    ffi.cdef(cdef)
    code = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S)
    functions = set(re.findall(r"^[\w \*]+?\b(ffv_\w+)\([^;{]*\);", code, re.M))
    assert functions
    assert not [name for name in functions if not re.search(rf"\b{name}\(", cdef)]
