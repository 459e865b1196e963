"""What cannot be imported in processes that need no tensors, and that they do without it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
SCHEMA = {"type": "json_schema", "json_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
COMPILE = f"""
from runtime.structured.compiler import compile_structure
from runtime.structured.vocabulary import GrammarVocabulary
vocabulary = GrammarVocabulary([bytes([byte]) for byte in range(256)], [256], vocab_size=300)
print(len(compile_structure(vocabulary, {json.dumps({"type": "structural_tag", "format": SCHEMA})!r})))
"""


def run_as(role: str, code: str) -> "subprocess.CompletedProcess[str]":
    barred = f"from appliance.processes.barred import bar_modules\nbar_modules({role!r})\n"
    command = [sys.executable, "-c", barred + code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_structures_compile_where_torch_cannot_be_imported() -> None:
    """A mask is an array of numpy."""
    done = run_as("compiler", COMPILE)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1000


@pytest.mark.parametrize(
    ("role", "module"), [("gateway", "torch"), ("compiler", "triton"), ("engine", "transformers"), ("auditor", "rich")]
)
def test_whoever_asks_for_what_is_barred_does_not_get_it(role: str, module: str) -> None:
    """Not even what comes with something else."""
    done = run_as(role, f"try:\n    import {module}\nexcept ModuleNotFoundError as error:\n    print(error.name)")
    assert done.stdout.split() == [module], done.stderr


def test_what_the_supervisor_executes_bars_before_it_imports() -> None:
    """What structlog would take where it finds it is not there, and the collector does not walk what comes."""
    code = """
import gc, runpy, sys
sys.argv = ["appliance.processes", "nobody"]
try:
    runpy.run_module("appliance.processes", run_name="__main__")
except SystemExit as end:
    print(end.code, gc.isenabled(), sys.modules["rich"], sys.modules["torch"], "structlog" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2", "False", "None", "None", "True"], done.stderr
