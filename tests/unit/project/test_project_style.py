"""House style that a program can check: sizes, names, docstrings, and what never stands in the text."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sources import Definition, read_source

MAX_MODULE_LINES = 400
FORBIDDEN_NAMES = ("utils", "util", "common", "helpers", "helper", "misc", "manager", "base", "impl", "v2")
TEXT_SUFFIXES = (".py", ".md", ".toml", ".txt", ".json", ".jinja", ".cfg", ".yaml", ".yml", "")


def words_of(path: Path) -> set[str]:
    """The words that a file's or folder's name is made of."""
    return set(re.split(r"[_.\-]", path.name.removesuffix(".py")))


def test_modules_have_at_most_400_lines(project_files: list[Path], project_root: Path) -> None:
    """A longer one wants to be two. Tests may be longer: their modules mirror the code's."""
    tests = project_root / "tests"
    python = [path for path in project_files if path.suffix == ".py" and tests not in path.parents]
    lengths = {str(path.relative_to(project_root)): len(path.read_text().splitlines()) for path in python}
    assert not {name: length for name, length in lengths.items() if length > MAX_MODULE_LINES}


def test_modules_are_named_after_what_is_in_them(product_modules: list[Path], project_root: Path) -> None:
    """A drawer for whatever comes along grows without end."""
    parts = {part for path in product_modules for part in [path, *path.relative_to(project_root).parents]}
    assert not {str(part) for part in parts if words_of(part) & set(FORBIDDEN_NAMES)}


def test_classes_are_named_after_what_they_are(product_modules: list[Path]) -> None:
    """No managers, helpers, mixins or bases."""
    pattern = re.compile(r"(Utils?|Helper|Manager|Base|Impl|Mixin)$|^(Base|Abstract)[A-Z]")
    found = [
        f"{path}: {definition.name}"
        for path in product_modules
        for definition in read_source(path).walk()
        if definition.is_class and pattern.search(definition.name)
    ]
    assert not found


def test_every_module_says_what_it_is(project_files: list[Path], project_root: Path) -> None:
    """Tests and tools included."""
    python = [path for path in project_files if path.suffix == ".py"]
    assert not [str(path.relative_to(project_root)) for path in python if not read_source(path).documented]


def test_every_package_of_the_product_has_an_init_with_a_docstring(
    product_modules: list[Path], project_root: Path
) -> None:
    """A folder without `__init__.py` is a namespace package, which others can add to."""
    folders = {path.parent for path in product_modules}
    assert not [str(folder.relative_to(project_root)) for folder in folders if not (folder / "__init__.py").is_file()]


def names_in_docstring(init: Path) -> set[str]:
    """What stands between backticks in a package's docstring; of a path, its parts."""
    docstring = init.read_text().split('"""')[1]
    return {part for path in re.findall(r"`([a-z_0-9./]+)`", docstring) for part in re.split(r"[./]", path)}


def test_docstring_of_a_package_names_what_is_in_it(product_modules: list[Path], project_root: Path) -> None:
    """Every module, and every package inside; but `errors` and `settings`, which are the same everywhere, and migrations."""
    inits = {path.parent: names_in_docstring(path) for path in product_modules if path.name == "__init__.py"}
    places = [path.parent if path.name == "__init__.py" else path for path in product_modules]
    assert not [
        f"{place.relative_to(project_root)}: say in the docstring of the package around it what it is"
        for place in places
        if place.parent in inits
        and place.stem not in inits[place.parent] | {"errors", "settings", "__main__"}
        and "migrations" not in place.parts[-3:-1]
    ]


def bare_definitions(definitions: tuple[Definition, ...], prefix: str = "") -> Iterator[str]:
    """Public functions and classes without a docstring, and those inside of public classes."""
    for definition in definitions:
        if definition.name.startswith("_"):
            continue
        if not definition.documented:
            yield f"{definition.line} {prefix}{definition.name}"
        if definition.is_class:
            yield from bare_definitions(definition.inner, f"{prefix}{definition.name}.")


def test_public_definitions_have_docstrings(product_modules: list[Path], project_root: Path) -> None:
    """Functions, classes and their methods; one that an interface tells of says where that is."""
    bare = [
        f"{path.relative_to(project_root)}:{found}"
        for path in product_modules
        for found in bare_definitions(read_source(path).definitions)
    ]
    assert not bare


def test_tests_are_named_and_say_what_they_claim(project_files: list[Path], project_root: Path) -> None:
    """The name is the behaviour, the docstring is the claim."""
    tests = [path for path in project_files if path.name.startswith("test_") and path.suffix == ".py"]
    silent = [
        f"{path.relative_to(project_root)}:{definition.line} {definition.name}"
        for path in tests
        for definition in read_source(path).walk()
        if not definition.is_class and definition.name.startswith("test_") and not definition.documented
    ]
    assert not silent


def test_tests_have_unique_file_names_and_no_packages(project_files: list[Path], project_root: Path) -> None:
    """A lone `__init__.py` under `tests` could shadow the package it is named after."""
    tests = [
        path for path in project_files if path.relative_to(project_root).parts[0] == "tests" and path.suffix == ".py"
    ]
    names = [path.name for path in tests if path.name != "conftest.py"]
    assert "__init__.py" not in names
    assert not {name for name in names if names.count(name) > 1}


def test_nothing_is_left_to_do_in_the_text(project_files: list[Path], project_root: Path) -> None:
    """What is missing is said where operators read it, not in a comment."""
    # Written so that the pattern does not find itself.
    pattern = re.compile(r"\b([T]ODO|[F]IXME|[X]XX|[H]ACK)\b")
    assert not _find(project_files, project_root, pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"/[w]ork/|/[o]pt/(wheels|pypi)|/[r]oot/|/[h]ome/[a-z]",
        r"\b[p]ypi\.org|[p]ythonhosted\.org|[d]ownload\.pytorch\.org|--(extra-)?[i]ndex-url|[f]ind-links",
    ],
    ids=["paths of a machine", "registry hosts"],
)
def test_text_names_no_machine_and_no_registry(pattern: str, project_files: list[Path], project_root: Path) -> None:
    """A clone behaves alike everywhere; where packages come from is the site's affair."""
    assert not _find(project_files, project_root, re.compile(pattern))


def _find(files: list[Path], root: Path, pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in files:
        if path.suffix not in TEXT_SUFFIXES or path.stat().st_size > 1 << 20:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if pattern.search(line):
                found.append(f"{path.relative_to(root)}:{number}: {line.strip()[:100]}")
    return found
