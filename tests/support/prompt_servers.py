"""uvicorn without its waits: it looks ten times a second whether it is to end, and then waits as long for nothing.

A product ends once; hundreds of tests start a server of their own each, and would wait for more than a minute.
"""

import asyncio
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import uvicorn

MOMENT_S = 0.005


async def _moment(delay_s: float) -> None:
    await asyncio.sleep(min(delay_s, MOMENT_S))


_PROMPT = SimpleNamespace(**{**vars(asyncio), "sleep": _moment})


def prompt_servers() -> AbstractContextManager[Any]:
    """Servers that begin and end within it do so at once."""
    return patch.object(uvicorn.server, "asyncio", _PROMPT)
