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


@pytest.mark.parametrize("role", ["gateway", "compiler", "auditor"])
def test_whoever_asks_for_it_gets_no_tensor_library(role: str) -> None:
    """Not even one that comes with something else."""
    done = run_as(role, "try:\n    import torch\nexcept ModuleNotFoundError as error:\n    print(error.name)")
    assert done.stdout.split() == ["torch"], done.stderr
