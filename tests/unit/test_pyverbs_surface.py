"""The package against pyverbs, name by name: classes, bases, parameters and defaults, methods, properties, values.

`data/pyverbs-api.json` lists the interface of pyverbs 65 (development) without the vendor modules; Debian's pyverbs 44
is asked itself. What is left out stands in HARDWARE_ONLY with the reason.
"""

import errno
import importlib
import inspect
import json
import mmap as mm
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

import ffverbs.libibverbs_enums as e
import ffverbs.librdmacm_enums as ce
from ffverbs.device import Context
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsRDMAError
from tests.unit import real_pyverbs

API: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "pyverbs-api.json").read_text(encoding="utf-8"))
MODULES: dict[str, Any] = API["modules"]

# Patterns of "module.Class.member" that need hardware. The classes are there; making an object raises EOPNOTSUPP.
HARDWARE_ONLY = {
    "dmabuf.DmaBuf.*": "memory of a graphics processor, allocated through its driver",
}
# Declarations for Cython, without Python names.
WITHOUT_NAMES = {"libibverbs", "librdmacm"}
# What an expression of a default value may name; the others come with their value.
SPACE = {"e": e, "v": e, "ce": ce, "mm": mm}
# What Cython gives a class and Python does not.
CYTHON_ONLY = {"__dealloc__", "__cinit__"}


def is_left_out(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in HARDWARE_ONLY)


def entries(kind: str) -> Iterator[tuple[str, str, Any]]:
    """Yield (module, name, entry) of all classes, functions, constants or enums."""
    for module, content in MODULES.items():
        for name, entry in content.get(kind, {}).items():
            yield module, name, entry


def all_of(kind: str) -> list[Any]:
    """Return a test parameter (module, name, entry) for each of them."""
    return [pytest.param(*found, id=f"{found[0]}.{found[1]}") for found in entries(kind)]


def members(kind: str) -> Iterator[tuple[str, str, str, Any]]:
    """Yield (module, class, name, entry) of all methods or properties of all classes."""
    for module, cls, entry in entries("classes"):
        for name, value in entry.get(kind, {}).items():
            yield module, cls, name, value


def all_members(kind: str) -> list[Any]:
    """Return a test parameter for each of them that is not left out."""
    named = ((".".join(found[:3]), found) for found in members(kind))
    return [pytest.param(*found, id=name) for name, found in named if not is_left_out(name)]


def ours(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"ffverbs.{module}"), name)


def default_of(entry: dict[str, Any]) -> object:
    return entry["default_value"] if "default_value" in entry else eval(entry["default"], dict(SPACE))


def check_parameters(function: Any, expected: list[dict[str, Any]], what: str) -> None:
    """Compare names, order, kinds and defaults of the parameters (without self)."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    assert [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] == [p["name"] for p in expected], what
    for parameter, entry in zip(parameters, expected, strict=True):
        if entry.get("kind") == "varkw":
            assert parameter.kind is parameter.VAR_KEYWORD, what
            continue
        assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD, what
        if "default" in entry:
            assert parameter.default == default_of(entry), f"{what}({parameter.name})"
        else:
            assert parameter.default is parameter.empty, f"{what}({parameter.name})"


def test_nothing_of_the_list_is_passed_over() -> None:
    """The tests of this file see as many names as the list says it has."""
    enums = list(entries("enums"))
    totals = Counter(
        classes=len(all_of("classes")),
        constructors=sum(entry["init"] is not None for _, _, entry in entries("classes")),
        methods=sum(not entry.get("private") for _, _, _, entry in members("methods")),
        properties=sum(1 for _ in members("properties")),
        setters=sum(bool(entry.get("set")) for _, _, _, entry in members("properties")),
        functions=sum(not entry.get("private") for _, _, entry in entries("functions")),
        constants=len(all_of("constants")),
        enums=sum(not name.startswith("<") for _, name, _ in enums),
        enum_members=sum(len(entry["members"]) for _, _, entry in enums),
    )
    assert totals == API["totals"]


@pytest.mark.parametrize("module", [m for m in MODULES if m not in WITHOUT_NAMES])
def test_modules_import(module: str) -> None:
    importlib.import_module(f"ffverbs.{module}")


@pytest.mark.parametrize(("module", "name", "entry"), all_of("classes"))
def test_classes(module: str, name: str, entry: dict[str, Any]) -> None:
    cls = ours(module, name)
    bases = [c.__name__ for c in cls.__mro__]
    for base in entry["bases"]:
        assert base in bases
    full = f"{module}.{name}"
    parameters = (entry["init"] or {}).get("params", [])
    takes_nothing = cls.__init__ is object.__init__ and not parameters
    if entry["init"] and not takes_nothing and not is_left_out(f"{full}.__init__"):
        check_parameters(cls.__init__, parameters, full)
    for special in set(entry.get("special", ())) - CYTHON_ONLY:
        if not is_left_out(f"{full}.{special}"):
            assert getattr(cls, special) is not getattr(object, special, None), special
    for constant, value in entry.get("class_attrs", {}).items():
        if not is_left_out(f"{full}.{constant}"):
            assert getattr(cls, constant) == value["value"]


@pytest.mark.parametrize(("module", "cls", "name", "entry"), all_members("methods"))
def test_methods(module: str, cls: str, name: str, entry: dict[str, Any]) -> None:
    static = isinstance(inspect.getattr_static(ours(module, cls), name), staticmethod)
    assert static == entry.get("static", False)
    check_parameters(getattr(ours(module, cls), name), entry["params"], f"{module}.{cls}.{name}")


@pytest.mark.parametrize(("module", "cls", "name", "entry"), all_members("properties"))
def test_properties(module: str, cls: str, name: str, entry: dict[str, Any]) -> None:
    attribute = inspect.getattr_static(ours(module, cls), name)
    if isinstance(attribute, property):
        readable, settable = attribute.fget is not None, attribute.fset is not None
    else:
        assert inspect.isdatadescriptor(attribute), "neither a property nor a slot"
        readable = settable = True
    # What pyverbs lets be read or set must be so here; a few write-only ones of pyverbs can be read here too.
    assert readable or not entry.get("get")
    assert settable == entry.get("set", False)
    assert attribute.__doc__ or not isinstance(attribute, property), "a property says what it is"


@pytest.mark.parametrize(("module", "name", "entry"), all_of("functions"))
def test_functions(module: str, name: str, entry: dict[str, Any]) -> None:
    parameters = entry["params"]
    if (module, name) == ("device", "speed_to_str"):
        # Version 44 has one parameter, 65 has two: the second may be left out.
        parameters = [parameters[0], {**parameters[1], "default": "0"}]
    check_parameters(ours(module, name), parameters, f"{module}.{name}")


@pytest.mark.parametrize(("module", "name", "entry"), all_of("constants"))
def test_constants(module: str, name: str, entry: dict[str, Any]) -> None:
    assert ours(module, name) == entry["value"]


@pytest.mark.parametrize(("module", "name", "entry"), all_of("enums"))
def test_enums(module: str, name: str, entry: dict[str, Any]) -> None:
    enum = None if name.startswith("<") else ours(module, name)
    for member, value in entry["members"].items():
        assert int(ours(module, member)) == value, member
        if enum is not None:
            assert int(enum[member]) == value, member
    if enum is not None:
        assert set(enum.__members__) >= set(entry["members"])


@pytest.mark.parametrize("pattern", HARDWARE_ONLY)
def test_what_needs_hardware_says_so(pattern: str) -> None:
    module, name, _ = pattern.split(".")
    cls = ours(module, name)
    parameters = MODULES[module]["classes"][name]["init"]["params"]
    with Context(name="ffv0") as context:
        arguments = [PD(context) if parameter.get("type") == "PD" else 0 for parameter in parameters]
        with pytest.raises(PyverbsRDMAError) as caught:
            cls(*arguments)
    assert caught.value.error_code == errno.EOPNOTSUPP


# ---- pyverbs 44, as Debian has it ----------------------------------------------------------------------------------

MODULES_OF_44 = [
    *("addr", "base", "cm_enums", "cmid", "cq", "device", "dmabuf", "enums", "flow", "fork", "mem_alloc", "mr", "pd"),
    *("pyverbs_error", "qp", "spec", "srq", "utils", "wq", "wr", "xrcd"),
]
LIST_NAMES = """
import importlib
def names(module):
    found = {}
    for name, value in vars(importlib.import_module("pyverbs." + module)).items():
        if name.startswith("__") or type(value).__name__ == "module":
            continue
        if getattr(value, "__module__", "pyverbs." + module) != "pyverbs." + module:
            continue
        found[name] = [n for n in dir(value) if not n.startswith("__")] if isinstance(value, type) else []
    return found
"""


@pytest.mark.parametrize("module", MODULES_OF_44)
def test_names_of_version_44(module: str) -> None:
    (theirs,) = real_pyverbs.evaluate(LIST_NAMES, f"names({module!r})")
    assert isinstance(theirs, dict), theirs
    missing = []
    package = importlib.import_module(f"ffverbs.{module}")
    for name, inner in theirs.items():
        if is_left_out(f"{module}.{name}"):
            continue
        if not hasattr(package, name):
            missing.append(name)
            continue
        missing += [
            f"{name}.{member}"
            for member in inner
            if not is_left_out(f"{module}.{name}.{member}") and not hasattr(getattr(package, name), member)
        ]
    assert not missing
