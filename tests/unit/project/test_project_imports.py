"""Who may import whom, and what no process but the engine loads."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sources import read_source

HEAVY = ("torch", "numpy", "tvm_ffi", "safetensors", "triton", "flashinfer", "transformers", "xgrammar")
READS_OF_THE_ENVIRONMENT = {"environ", "environb", "getenv", "putenv"}
LIGHT_PROCESSES = (
    "appliance.cli.main",
    "appliance.cli.serve",
    "appliance.supervisor.supervisor",
    "appliance.processes.gateway",
    "appliance.processes.policy",
    "appliance.processes.auditor",
    "appliance.processes.authority",
)


def test_import_contracts_hold(project_root: Path) -> None:
    """Layers, pillars that stand apart, tensors in `runtime` only, web frameworks in `appliance` only."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=project_root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", LIGHT_PROCESSES)
def test_only_the_engines_process_loads_tensors(module: str, project_root: Path) -> None:
    """Four of five processes never pay for torch, and a captured one finds no compiler in it."""
    code = f"import sys, {module}\nprint(*sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=project_root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_compiler_loads_no_tensor_library(project_root: Path) -> None:
    """It takes structures from anybody: xgrammar's library is all that it needs, of numpy an array."""
    code = (
        "import sys\nfrom appliance.processes.barred import bar_modules\nbar_modules('compiler')\n"
        "import appliance.processes.compiler\n"
        f"print(*sorted({{*{HEAVY!r}, 'pydantic'}} & {{name for name, module in sys.modules.items() if module}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project_root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["numpy", "tvm_ffi"]


@pytest.mark.parametrize(
    ("module", "unneeded"),
    [
        (
            "appliance.processes.entry",
            (
                "appliance.gateway.tools.forms",
                "audit.sealing",
                "runtime.parallel.channel",
                "runtime.weights.config",
                "tuf",
            ),
        ),
        ("appliance.processes.gateway", ("securesystemslib", "tuf")),
        ("appliance.processes.compiler", ("securesystemslib", "tuf")),
        ("security.sandbox.launch", ("security.sandbox.lending", "security.sandbox.seccomp", "socket")),
    ],
)
def test_a_start_imports_nothing_for_what_it_seldom_needs(
    module: str, unneeded: tuple[str, ...], project_root: Path
) -> None:
    """Every appliance has seven processes and more: a tenth of a second in each is one of every start."""
    barred = "from appliance.processes.barred import bar_modules\nbar_modules('compiler')\n"
    code = f"{barred}import sys, {module}\nprint(*sorted(set({unneeded!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=project_root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_engine_does_not_load_the_outside_judge(project_root: Path) -> None:
    """transformers takes seconds to import and decodes pickles: it judges in tests and is no part of the product."""
    code = "import sys, appliance.processes.engine\nprint('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=project_root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]


def test_nothing_decodes_by_executing(product_modules: list[Path]) -> None:
    """No pickle and no kin of it, wherever the import stands."""
    forbidden = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    found = [
        f"{path}: {name}"
        for path in product_modules
        for name in read_source(path).modules()
        if name.split(".")[0] in forbidden
    ]
    assert not found


def test_environment_is_read_in_one_place(product_modules: list[Path], project_root: Path) -> None:
    """Environment variables are no second configuration: `appliance.config` alone may look at them."""
    found = []
    for path in product_modules:
        if path.relative_to(project_root).parts[:2] == ("appliance", "config"):
            continue
        source = read_source(path)
        lines = [line for name, line in source.attributes.items() if name in READS_OF_THE_ENVIRONMENT]
        lines += [node.lineno for node in source.imports if _imports_from_os(node) & READS_OF_THE_ENVIRONMENT]
        found += [f"{path.relative_to(project_root)}:{line}" for line in lines]
    assert not found


def _imports_from_os(node: ast.Import | ast.ImportFrom) -> set[str]:
    from_os = isinstance(node, ast.ImportFrom) and node.module == "os"
    return {alias.name for alias in node.names} if from_os else set()


def test_no_type_checking_back_edges(product_modules: list[Path]) -> None:
    """A type that is needed below is moved down, not imported from above behind the type checker's back."""
    found = [str(path) for path in product_modules if "TYPE_CHECKING" in path.read_text()]
    assert not found


def test_packages_are_acyclic_inside(product_modules: list[Path], project_root: Path) -> None:
    """No module is needed by what it needs itself, at whatever depth."""
    modules = {_module_name(path, project_root): path for path in product_modules}
    graph = {name: {target for target in _targets(path, modules) if target != name} for name, path in modules.items()}
    assert _find_cycle(graph) == []


def _module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _targets(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Modules of ours that are imported when this one is: `from package import module` counts as the module."""
    for node in read_source(path).outer_imports:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif node.module in modules:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in inner if name in modules)
            if not all(name in modules for name in inner):
                yield node.module


def _find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Some cycle as a list of modules, or an empty list (depth-first search with three colours)."""
    done: set[str] = set()
    for start in graph:
        trail: list[str] = []
        stack = [(start, iter(sorted(graph[start])))] if start not in done else []
        trail += [start] if stack else []
        while stack:
            target = next(stack[-1][1], None)
            if target is None:
                done.add(stack.pop()[0])
                trail.pop()
            elif target in trail:
                return [*trail[trail.index(target) :], target]
            elif target not in done:
                stack.append((target, iter(sorted(graph[target]))))
                trail.append(target)
    return []
