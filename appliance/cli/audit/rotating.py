"""`casemate audit rotate-key` and `rotate-log`: another key for the log, another log behind it."""

import argparse
from pathlib import Path

from appliance.cli.audit.arguments import WrongUsage, add_folder, read_file, require_folder, set_handler
from appliance.cli.audit.records import find_entry
from appliance.cli.caller import actor
from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_OK
from appliance.models.places import open_outbox
from audit.entry import parse_canonical
from audit.errors import RotationRefused
from audit.governance import RULES, forget_rotation, load_rules
from audit.note import MAX_NOTE_BYTES, parse_verifier_key
from audit.permissions import kind_of
from audit.rotation import PREDECESSOR, finish_key, rotate_log, stage_key
from audit.storage import Disk
from security.acting import acting_as_owner


def add_rotate_commands(commands: Commands) -> None:
    """Add both."""
    key = add_command(commands, "rotate-key", "make the log's next key; with --finish, put it in the first place")
    add_folder(key)
    key.add_argument(
        "--finish", action="store_true", help="once every verifier has the next public key; the appliance is stopped"
    )
    set_handler(key, _rotate_key)
    log = add_command(commands, "rotate-log", "close the log for good; the next one, of another name, continues it")
    add_folder(log)
    set_handler(log, _rotate_log)


def _rotate_key(arguments: argparse.Namespace) -> int:
    folder = require_folder(arguments.dir).resolve()
    path = folder.parent / "log.key"
    origin = _origin_of(path)
    if not arguments.finish:
        with acting_as_owner(path.parent):
            current, following = stage_key(path, origin)
        print(f"next key    {following.encode()}")
        print(
            "From the next start of the appliance on both keys sign. Give verifiers the next one, then run this with --finish."
        )
        stage = "staged"
    else:
        with acting_as_owner(path.parent):
            current, following = finish_key(folder, path, origin)
        print(f"key         {following.encode()}")
        stage = "finished"
    open_outbox(folder.parent.parent).put(
        "key_rotated",
        name=origin,
        digest=f"{following.key_id:08x}",
        actor=actor(),
        facts={"previous": f"{current.key_id:08x}", "stage": stage},
    )
    return EXIT_OK


def _rotate_log(arguments: argparse.Namespace) -> int:
    folder = arguments.dir.resolve()
    if not (folder.parent / PREDECESSOR).exists():
        require_folder(folder)  # Else a rotation may have been interrupted, and is finished now.
    if folder.exists():
        _verify_agreed(folder)
    with acting_as_owner(folder.parent):
        predecessor, old = rotate_log(folder, folder.parent / "log.key")
        forget_rotation(folder.parent / RULES, Disk())
    checkpoint = predecessor.checkpoint
    open_outbox(folder.parent.parent).put(
        "key_rotated",
        name=checkpoint.origin,
        digest="none",
        actor=actor(),
        facts={"previous": f"{predecessor.key.key_id:08x}", "stage": "log closed"},
    )
    print(f"closed      {checkpoint.origin}: {checkpoint.size} records, root {checkpoint.root.hex()}")
    print(f"            {old}, to be verified with {old.with_suffix('.vkey').name}")
    print(
        "Give the next log a name of its own (audit.origin), then start the appliance: its first record names this one."
    )
    return EXIT_OK


def _verify_agreed(folder: Path) -> None:
    """That auditor and administrator agreed, by the record that says so: the file alone is anybody's word.

    Raises: RotationRefused.
    """
    index = load_rules(folder.parent / RULES, 1).rotation_index
    advice = "propose it with `casemate audit agree-rotation`, and have the other role confirm it"
    if index < 0:
        raise RotationRefused(f"auditor and administrator have not agreed to rotate this log: {advice}")
    kind = kind_of(parse_canonical(find_entry(folder, index)))
    if kind != "log_rotation_agreed":
        raise RotationRefused(f"record {index} is {kind}, not the agreement to rotate this log: {advice}")


def _origin_of(key_path: Path) -> str:
    vkey = key_path.with_suffix(".vkey")
    if not vkey.exists():
        raise WrongUsage(f"{vkey}: is missing; this is no folder of an installation")
    return parse_verifier_key(read_file(vkey, MAX_NOTE_BYTES).decode("utf-8", "replace").strip()).name
