"""xgrammar, imported without transformers.

xgrammar names two classes of transformers, for a constructor from a tokenizer of its that is not used here, and a base class for
an adapter. Importing the library for that takes seconds of every start and brings code that no process of ours may run. So
placeholders stand in its place while xgrammar is imported, unless somebody has imported it already (tests compare with it).
"""

import importlib.machinery
import sys
import types
from typing import Any

_NAMES = ("PreTrainedTokenizerBase", "PreTrainedTokenizerFast", "LogitsProcessor")


def _import_xgrammar() -> Any:
    stands_in = "transformers" not in sys.modules
    if stands_in:
        placeholder = types.ModuleType("transformers")
        placeholder.__spec__ = importlib.machinery.ModuleSpec("transformers", None)
        for name in _NAMES:
            setattr(placeholder, name, type(name, (), {}))
        sys.modules["transformers"] = placeholder
    try:
        import xgrammar
    finally:
        if stands_in:
            del sys.modules["transformers"]
    return xgrammar


xgrammar = _import_xgrammar()
