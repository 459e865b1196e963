"""The operator's log shows where something failed, and nothing of what it failed on."""

import json
import logging
import sys

import structlog

from appliance.authority.upstream import Begun
from appliance.gateway.identity import Presented
from appliance.logging import LibraryFormatter, configure_logging, frames_only
from appliance.messages.audit import TicketKey
from appliance.messages.policy import Found, NonceKey, SetPassword
from tests.support.controls import control


@control("SI-11")
def test_a_traceback_shows_frames_and_the_kind_and_no_words() -> None:
    """The message of an exception may be a client's own text; so may those that it came from."""
    prompt = "what the client typed"
    try:
        try:
            {}[prompt]
        except KeyError as error:
            raise ValueError(f"cannot use {prompt}") from error
    except ValueError:
        event = frames_only(None, "error", {"event": "failed", "exc_info": True})
    shown = json.dumps(event)
    assert prompt not in shown
    assert "ValueError" in shown
    assert "KeyError" in shown
    assert "test_a_traceback_shows_frames" in shown
    assert "exc_info" not in event


def test_the_processor_is_in_the_chain_that_processes_use() -> None:
    """And structlog's own, which shows messages, is not."""
    before, level, handlers = structlog.get_config(), logging.root.level, logging.root.handlers[:]
    try:
        configure_logging("test")
        processors = structlog.get_config()["processors"]
    finally:
        structlog.configure(**before)
        structlog.contextvars.clear_contextvars()
        logging.root.level, logging.root.handlers[:] = level, handlers
    assert frames_only in processors
    assert structlog.processors.format_exc_info not in processors


def test_libraries_are_heard_without_what_they_fill_in() -> None:
    """asyncio shows a forgotten task with its exception, and the exception with its words."""
    try:
        raise KeyError("what the client typed")
    except KeyError:
        record = logging.LogRecord(
            "asyncio", logging.ERROR, "x.py", 1, "Task failed: %s\nfuture: typed", ("typed",), sys.exc_info()
        )
    shown = LibraryFormatter().format(record)
    assert "typed" not in shown.replace("test_", "")
    assert json.loads(shown)["event"] == "Task failed: %s"
    assert "KeyError at" in shown


def test_what_passes_between_processes_shows_no_secret_of_its_own() -> None:
    """A debugger's line, an assertion or a library that logs what it was given: none of them has a key or a token to show."""
    canary = "canary-canary-canary-canary-1234"
    carriers = [
        TicketKey(canary.encode()),
        NonceKey(canary.encode(), 0.0),
        SetPassword(1, "user-1", canary),
        Found(1, canary.encode()),
        Presented(scheme="bearer", token=canary, method="GET", path="/v1/models", address="127.0.0.1"),
        Begun(canary, canary, canary, "/"),
    ]
    assert [one for one in carriers if canary in repr(one)] == []
