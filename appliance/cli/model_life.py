"""`casemate model import|approve|promote|retire|list|show`: from a folder that came from somewhere to a model that is served.

Every step but `list` and `show` leaves a notice for the log before it takes effect: without it nothing is taken in, approved,
promoted or retired. So does an import that was refused.
"""

import argparse
import datetime
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from appliance.cli.caller import actor
from appliance.cli.commands import Commands, add_command
from appliance.cli.hashing_progress import Percentage, count, format_size
from appliance.cli.main import EXIT_OK
from appliance.cli.progress import Progress
from appliance.cli.signing_key import KEY_HELP, open_signer
from appliance.cli.state import add_state_options, find_state, is_fips
from appliance.cli.terminal import say
from appliance.errors import CommandFailed
from appliance.models.checks import checks_of
from appliance.models.places import open_outbox, open_store, open_trust, utc_now
from security.bundles.installing import extract_component
from security.bundles.verification import open_bundle
from security.errors import BundleRejected, ModelRejected
from security.model_signing.algorithms import ALGORITHMS, SHA256
from security.model_signing.names import show_name
from security.model_signing.trust import Trust, load_certificate_trust, load_key_trust
from security.stewards.admission import (
    Admitted,
    agree_on_load_digests,
    find_approvals,
    read_import,
    read_load_digests,
    read_signature,
)
from security.stewards.approving import Approved, approve_model, promote_model, retire_model
from security.stewards.importing import Imported, Source, import_model
from security.stewards.load_digests import describe_list
from security.stewards.role_file import Person, RoleFile
from security.stewards.store import RETIREMENT, Item, ModelStore
from security.stewards.truss import CONFIG_NAME, MAX_CONFIG_BYTES, parse_truss_config


def add_life_commands(commands: Commands) -> None:
    """Add the commands of a model's life."""
    take = _add(commands, "import", "check a model folder or a Truss, copy it into quarantine, sign it", _import)
    take.add_argument("folder", metavar="DIR", type=Path)
    take.add_argument("--key", required=True, metavar="KEY", help=f"the importer's key: {KEY_HELP}")
    take.add_argument("--name", help="what clients will ask for (default: the folder's name)")
    take.add_argument("--origin", default="", metavar="TEXT", help="where the model came from, for the record")
    take.add_argument(
        "--licence", default="", metavar="TEXT", help="the licence, where the folder holds no licence file"
    )
    add_digest_option(take)
    _add_load_digests_option(take)
    take.add_argument("--kind", choices=("model", "draft", "adapter"), default="model", help="default: model")
    take.add_argument("--component", metavar="NAME", help="DIR is a bundle: import this component of it")
    take.add_argument(
        "--owner", choices=("vendor", "customer"), default="customer", help="whose bundle it is (default: customer)"
    )
    take.add_argument("--vendor-signature", type=Path, metavar="FILE", help="the vendor's signature, to be verified")
    trust = take.add_mutually_exclusive_group()
    trust.add_argument("--vendor-key", type=Path, metavar="PEM", help="the vendor's public key")
    trust.add_argument("--vendor-root", type=Path, metavar="PEM", help="the root of the vendor's certificate")
    approve = _add(
        commands, "approve", "verify a model in quarantine and sign, as a steward, that it may be served", _approve
    )
    _add_root(approve)
    _add_load_digests_option(approve)
    approve.add_argument("--key", required=True, metavar="KEY", help=f"the steward's key: {KEY_HELP}")
    promote = _add(commands, "promote", "let the model's name stand for an approved model", _promote)
    _add_root(promote)
    retire = _add(commands, "retire", "take a model out of service for ever, as a steward", _retire)
    _add_root(retire)
    retire.add_argument("--key", required=True, metavar="KEY", help=f"the steward's key: {KEY_HELP}")
    retire.add_argument("--reason", required=True, metavar="TEXT")
    _add(commands, "list", "list the models of the store", _list)
    show = _add(commands, "show", "show where a model came from and who approved it", _show)
    _add_root(show)


def _add(commands: Commands, name: str, summary: str, handler: Any) -> argparse.ArgumentParser:
    command = add_command(commands, name, summary, handler)
    add_state_options(command)
    command.add_argument("--json", action="store_true", help="print JSON")
    return command


def add_digest_option(command: argparse.ArgumentParser) -> None:
    """Add `--digest`, for commands that sign files."""
    command.add_argument(
        "--digest",
        choices=ALGORITHMS,
        default=SHA256,
        help="what files are digested with: sha256 (default), or blake3, which is faster and which fips = true refuses",
    )


def _add_load_digests_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--no-load-digests",
        action="store_true",
        help="compute no BLAKE3 digests of the weights beside SHA-256, as with fips = true: an engine takes longer to load then",
    )


def _add_root(command: argparse.ArgumentParser) -> None:
    command.add_argument("root", metavar="DIGEST", help="the model's digest, or 8 or more digits of it")


def _import(arguments: argparse.Namespace) -> int:
    with _noting_refusals(arguments):
        return (
            _import_folder(arguments, arguments.folder) if arguments.component is None else _import_component(arguments)
        )


def _import_component(arguments: argparse.Namespace) -> int:
    state = find_state(arguments)
    open_store(state).prepare()
    trust = open_trust(state)
    with (
        open_bundle(arguments.folder, trust, arguments.owner, now=utc_now(), remember=True) as bundle,
        tempfile.TemporaryDirectory(prefix="unpacked-", dir=open_store(state).path) as place,
    ):
        trust.note_time(utc_now())
        folder = Path(place) / arguments.component
        extract_component(bundle, arguments.component, folder)
        arguments.origin = (
            arguments.origin or f"bundle {bundle.release.owner} {bundle.release.name} sha256:{bundle.digest}"
        )
        return _import_folder(arguments, folder)


def _import_folder(arguments: argparse.Namespace, folder: Path) -> int:
    state = find_state(arguments)
    source = _describe_source(arguments, folder)

    def describe(made: Imported) -> dict[str, str | int]:
        return {
            "num_files": made.num_files,
            "size_bytes": made.size_bytes,
            "origin": source.origin,
            "load_digests": describe_list(made.load_digests),
        }

    def announce(made: Imported) -> None:
        _leave_notice(state, "model_imported", source.name, made.item.root, made.importer.name, describe(made))

    with open_signer(arguments.key) as signer, Progress("importing") as progress:
        imported = import_model(
            source,
            open_store(state),
            _load_roles(state),
            signer,
            checks_of(arguments.kind),
            progress=Percentage(progress).report,
            announce=announce,
        )
    root, importer, facts = imported.item.root, imported.importer.name, describe(imported)
    if arguments.json:
        print(json.dumps({"name": source.name, "root": root, "importer": importer, **imported.facts, **facts}))
        return EXIT_OK
    print(
        f"imported   {source.name}, {count(imported.num_files, 'file')}, {format_size(imported.size_bytes)}, by {importer}"
    )
    print(f"root       sha256:{root}")
    print("in quarantine until two other stewards run `casemate model approve`")
    return EXIT_OK


def _leave_notice(state: Path, kind: str, name: str, root: str, who: str, facts: Mapping[str, str | int]) -> None:
    open_outbox(state).put(kind, name=name, digest=f"sha256:{root}", actor=who, facts=facts)


@contextmanager
def _noting_refusals(arguments: argparse.Namespace) -> Iterator[None]:
    """The model's own, those of a Truss that asks for too much, and of a bundle that is not what was signed."""
    try:
        yield
    except (ModelRejected, BundleRejected) as error:
        name = arguments.name or arguments.component or Path(arguments.folder.absolute()).name
        facts = {"reason": str(error).splitlines()[0], "folder": str(arguments.folder)}
        outbox = open_outbox(find_state(arguments))
        outbox.put("model_import_refused", name=name, digest="none", actor=actor(), facts=facts)
        raise


def _describe_source(arguments: argparse.Namespace, folder: Path) -> Source:
    if (arguments.vendor_signature is None) != (arguments.vendor_key is None and arguments.vendor_root is None):
        raise CommandFailed("--vendor-signature goes with one of --vendor-key and --vendor-root")
    trust: Trust | None = None
    if arguments.vendor_key is not None:
        trust = load_key_trust(arguments.vendor_key)
    elif arguments.vendor_root is not None:
        trust = load_certificate_trust(arguments.vendor_root)
    name = arguments.name or Path(folder.absolute()).name
    origin = arguments.origin
    if (folder / CONFIG_NAME).is_file():
        with (folder / CONFIG_NAME).open("rb") as file:
            package = parse_truss_config(file.read(MAX_CONFIG_BYTES + 1))
        folder = folder / package.data_dir
        name = arguments.name or package.model_name or name
        origin = origin or f"Truss: {package.description}"[:1000]
    return Source(
        folder,
        name,
        origin,
        arguments.licence,
        arguments.vendor_signature,
        trust,
        arguments.digest,
        with_load_digests=_with_load_digests(arguments),
    )


def _with_load_digests(arguments: argparse.Namespace) -> bool:
    """Unless somebody says that no algorithm outside the list may be used."""
    return not (arguments.no_load_digests or is_fips(arguments))


def _approve(arguments: argparse.Namespace) -> int:
    state = find_state(arguments)
    item = open_store(state).find(arguments.root)
    roles = _load_roles(state)
    name, others = read_import(item, roles)[0].model, _approvers(item, roles)

    def describe(approved: Approved) -> dict[str, str | int]:
        return {
            "approvals": len({*others, approved.steward.name}),
            "approvals_required": roles.approvals_required,
            "load_digests": describe_list(approved.load_digests),
        }

    def announce(approved: Approved) -> None:
        _leave_notice(state, "model_approved", name, item.root, approved.steward.name, describe(approved))

    with open_signer(arguments.key) as signer, Progress("verifying") as progress:
        report, with_load_digests = Percentage(progress).report, _with_load_digests(arguments)
        approved = approve_model(
            item, roles, signer, with_load_digests=with_load_digests, progress=report, announce=announce
        )
    steward, facts = approved.steward.name, describe(approved)
    if arguments.json:
        print(json.dumps({"name": name, "root": item.root, "steward": steward, **facts}))
        return EXIT_OK
    print(f"verified   all files as signed, {format_size(approved.size_bytes)}; load digests {facts['load_digests']}")
    print(f"approved   {name} by {steward}; {facts['approvals']} of {roles.approvals_required} approvals")
    return EXIT_OK


def _promote(arguments: argparse.Namespace) -> int:
    state = find_state(arguments)
    store = open_store(state)
    before = store.promoted()

    def describe(admitted: Admitted) -> dict[str, str | int]:
        return {
            "previous": f"sha256:{before[admitted.name]}" if admitted.name in before else "none",
            "approved_by": ", ".join(admitted.approvers),
            "imported_by": admitted.importer,
            "load_digests": describe_list(admitted.load_digests),
        }

    def announce(admitted: Admitted) -> None:
        _leave_notice(state, "model_promoted", admitted.name, admitted.root, actor(), describe(admitted))

    admitted = promote_model(store, store.find(arguments.root), _load_roles(state), announce)
    facts = describe(admitted)
    path = Path(os.path.abspath(store.path_of(admitted.name)))
    if arguments.json:
        print(json.dumps({"name": admitted.name, "root": admitted.root, "model_path": str(path), **facts}))
    else:
        print(f"promoted   {admitted.name}, imported by {admitted.importer}, approved by {facts['approved_by']}")
        print(f"model_path = {json.dumps(str(path))}")
    return EXIT_OK


def _retire(arguments: argparse.Namespace) -> int:
    state = find_state(arguments)
    store, roles = open_store(state), _load_roles(state)
    item = store.find(arguments.root)
    name = read_import(item, roles)[0].model

    def announce(steward: Person) -> None:
        _leave_notice(state, "model_retired", name, item.root, steward.name, {"reason": arguments.reason})

    with open_signer(arguments.key) as signer:
        steward = retire_model(store, item, roles, signer, arguments.reason, announce)
    if arguments.json:
        print(json.dumps({"name": name, "root": item.root, "steward": steward.name}))
    else:
        print(f"retired    {name} by {steward.name}; engines that run it keep it until they are started again")
    return EXIT_OK


def _list(arguments: argparse.Namespace) -> int:
    state = find_state(arguments)
    store, roles = open_store(state), _load_roles(state)
    models = [_describe(store, item, roles) for item in store.items()]
    if arguments.json:
        print(json.dumps(models))
    elif not models:
        print("There are no models yet; `casemate model import DIR` takes one in.")
    for model in models if not arguments.json else ():
        say(f"{model['root'][:16]}  {model['state']:<10}  {model['name']:<32}  {', '.join(model['approved_by'])}")
    return EXIT_OK


def _show(arguments: argparse.Namespace) -> int:
    state = find_state(arguments)
    store, roles = open_store(state), _load_roles(state)
    model = _describe(store, store.find(arguments.root), roles)
    if arguments.json:
        print(json.dumps(model))
        return EXIT_OK
    for key, value in model.items():
        shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        print(f"{key:<12} {show_name(str(shown)) if isinstance(shown, str) else json.dumps(shown)}")
    return EXIT_OK


def _describe(store: ModelStore, item: Item, roles: RoleFile) -> dict[str, Any]:
    """What the evidence says; a model whose evidence does not hold is shown as such and not left out."""
    try:
        imported, importer, envelope = read_import(item, roles)
        stated = read_load_digests(imported, read_signature(item, roles))
        approvals = find_approvals(item, roles, imported, importer, envelope)
        agreed = agree_on_load_digests(stated, approvals, roles.approvals_required)
    except ModelRejected as error:
        return {"root": item.root, "name": "?", "state": "unverified", "approved_by": (), "problem": str(error)}
    promoted = {root: name for name, root in store.promoted().items()}
    state = "approved" if item.is_approved else "quarantine"
    state = "promoted" if item.root in promoted else state
    state = "retired" if item.read(RETIREMENT) is not None else state
    return {
        "root": item.root,
        "name": imported.model,
        "state": state,
        "imported_by": importer.name,
        "approved_by": tuple(sorted(approvals)),
        "load_digests": describe_list(agreed),
        **{key: imported.predicate.get(key) for key in ("imported_at", "origin", "licence", "vendor", "facts")},
    }


def _approvers(item: Item, roles: RoleFile) -> tuple[str, ...]:
    imported, importer, envelope = read_import(item, roles)
    return tuple(sorted(find_approvals(item, roles, imported, importer, envelope)))


def _load_roles(state: Path) -> RoleFile:
    at: datetime.datetime = utc_now()
    return open_trust(state).load_roles(at=at)
