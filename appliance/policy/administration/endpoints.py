"""What the admin API does: each endpoint one change or one list, in the thread of the definitions, under the name of
whoever's token it was.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from appliance.gateway.errors import BadRequest, Forbidden
from appliance.gateway.exchange import Exchange
from appliance.gateway.routes import RouteTable
from appliance.policy.administration.bodies import (
    ApprovalBody,
    ClientKeys,
    KeyRevocation,
    LimitBody,
    ModelsBody,
    NewClient,
    NewKey,
    NewUser,
    Nothing,
    RoleBody,
    RoleModels,
    parse_body,
)
from appliance.policy.store import DefinitionsStore
from security.clients import Client
from security.registry.clients import ClientRegistry
from security.registry.database import Database, Source
from security.registry.limits import LimitRegistry
from security.registry.roles import RoleRegistry
from security.registry.rows import describe
from security.registry.static_keys import StaticKeyRegistry
from security.registry.users import UserRegistry
from security.scopes import Role, Scope
from security.users import User

Work = Callable[[Database, str], Any]
Build = Callable[[Exchange, bytes], Work]


class Administration:
    """The endpoints over one store."""

    def __init__(self, store: DefinitionsStore, credentials_key: bytes) -> None:
        self._store = store
        self._key = credentials_key

    def register(self, routes: RouteTable) -> None:
        """Add every route."""
        for path, read in self._lists().items():
            routes.register("GET", path, Scope.IDENTITY_READ, self._reading(read))
        for (method, path), build in self._changes().items():
            routes.register(method, path, Scope.IDENTITY_MANAGE, self._changing(build))
        for path, build in self._grants().items():
            routes.register("POST", path, Scope.IDENTITY_MANAGE, self._changing(build, people_only=True))

    def _lists(self) -> dict[str, Callable[[Database], Any]]:
        return {
            "/admin/clients": lambda database: [describe(one) for one in ClientRegistry(database, b"").all()],
            "/admin/users": lambda database: [describe(one) for one in UserRegistry(database, b"").all()],
            "/admin/keys": lambda database: [describe(one) for one in StaticKeyRegistry(database, b"").all()],
            "/admin/roles/pending": lambda database: [describe(one) for one in RoleRegistry(database).pending()],
            "/admin/limits": lambda database: [msgspec.to_builtins(one) for one in LimitRegistry(database).all()],
        }

    def _changes(self) -> dict[tuple[str, str], Build]:
        return {
            ("POST", "/admin/clients"): self._create_client,
            ("POST", "/admin/clients/disable/{id}"): _by_id(
                lambda database, segment, actor: ClientRegistry(database, b"").disable(segment, actor=actor)
            ),
            ("POST", "/admin/clients/enable/{id}"): _by_id(
                lambda database, segment, actor: ClientRegistry(database, b"").enable(segment, actor=actor)
            ),
            ("POST", "/admin/clients/rotate/{id}"): self._rotate_client,
            ("POST", "/admin/clients/keys/{id}"): self._set_client_keys,
            ("POST", "/admin/clients/models/{id}"): self._set_client_models,
            ("PUT", "/admin/roles/models"): self._set_role_models,
            ("POST", "/admin/users/disable/{id}"): _by_id(
                lambda database, segment, actor: UserRegistry(database, b"").disable(segment, actor=actor)
            ),
            ("POST", "/admin/users/enable/{id}"): _by_id(
                lambda database, segment, actor: UserRegistry(database, b"").enable(segment, actor=actor)
            ),
            ("POST", "/admin/users/reset/{id}"): self._reset_user,
            ("PUT", "/admin/limits"): self._set_limits,
            ("POST", "/admin/keys"): self._create_key,
            ("POST", "/admin/keys/revoke"): self._revoke_keys,
        }

    def _grants(self) -> dict[str, Build]:
        """What needs a person: a program cannot be the second one, nor the first."""
        return {
            "/admin/users": self._create_user,
            "/admin/roles/grant/{id}": self._grant,
            "/admin/roles/approve/{id}": self._approve,
            "/admin/roles/refuse/{id}": _by_id(
                lambda database, segment, actor: RoleRegistry(database).refuse(segment, actor=actor)
            ),
        }

    def _create_client(self, exchange: Exchange, data: bytes) -> Work:
        body = parse_body(data, NewClient)
        if body.role is not Role.USER:
            _verify_person(exchange)

        def create(database: Database, actor: str) -> Any:
            issued = ClientRegistry(database, self._key).create(body.definition(), actor=actor)
            return {**describe(issued.client), "client_secret": issued.secret}

        return create

    def _rotate_client(self, exchange: Exchange, data: bytes) -> Work:
        parse_body(data or b"{}", Nothing)

        def rotate(database: Database, actor: str) -> Any:
            registry = ClientRegistry(database, self._key)
            _verify_may_replace(exchange, registry.find(exchange.segment))
            issued = registry.rotate(exchange.segment, actor=actor)
            return {**describe(issued.client), "client_secret": issued.secret}

        return rotate

    def _set_client_keys(self, exchange: Exchange, data: bytes) -> Work:
        keys = parse_body(data, ClientKeys).verified()

        def change(database: Database, actor: str) -> Any:
            registry = ClientRegistry(database, b"")
            _verify_may_replace(exchange, registry.find(exchange.segment))
            return describe(registry.set_keys(exchange.segment, keys, actor=actor))

        return change

    def _set_client_models(self, exchange: Exchange, data: bytes) -> Work:
        models = parse_body(data, ModelsBody).verified()
        return lambda database, actor: describe(
            ClientRegistry(database, b"").set_models(exchange.segment, models, actor=actor)
        )

    def _set_role_models(self, _exchange: Exchange, data: bytes) -> Work:
        body = parse_body(data, RoleModels)
        models = body.verified()

        def change(database: Database, actor: str) -> Any:
            RoleRegistry(database).set_models(body.role, models, actor=actor)
            return {"role": body.role.value, "models": models}

        return change

    def _create_user(self, _exchange: Exchange, data: bytes) -> Work:
        body = parse_body(data, NewUser)

        def create(database: Database, actor: str) -> Any:
            new = UserRegistry(database, self._key).create(body.definition(), actor=actor, totp=body.totp)
            return {**describe(new.user), "password": new.password, "totp_uri": new.totp_uri}

        return create

    def _reset_user(self, exchange: Exchange, data: bytes) -> Work:
        parse_body(data or b"{}", Nothing)

        def reset(database: Database, actor: str) -> Any:
            registry = UserRegistry(database, self._key)
            _verify_may_replace(exchange, registry.find(exchange.segment))
            new = registry.reset(exchange.segment, actor=actor)
            return {**describe(new.user), "password": new.password, "totp_uri": new.totp_uri}

        return reset

    def _grant(self, exchange: Exchange, data: bytes) -> Work:
        body = parse_body(data, RoleBody)
        return lambda database, actor: describe(RoleRegistry(database).grant(exchange.segment, body.role, actor=actor))

    def _approve(self, exchange: Exchange, data: bytes) -> Work:
        role = parse_body(data or b"{}", ApprovalBody).role
        return lambda database, actor: describe(
            RoleRegistry(database).approve(exchange.segment, actor=actor, role=role)
        )

    def _set_limits(self, _exchange: Exchange, data: bytes) -> Work:
        body = parse_body(data, LimitBody)

        def change(database: Database, actor: str) -> Any:
            registry = LimitRegistry(database)
            if body.limits is None:
                registry.remove(body.subject, body.name, actor=actor)
                return {}
            return msgspec.to_builtins(registry.set(body.rule(), actor=actor))

        return change

    def _create_key(self, _exchange: Exchange, data: bytes) -> Work:
        body = parse_body(data, NewKey)

        def create(database: Database, actor: str) -> Any:
            issued = StaticKeyRegistry(database, self._key).create(
                body.client_id, body.name, networks=body.networks, days=body.days, actor=actor
            )
            return {**describe(issued.key), "key": issued.secret}

        return create

    def _revoke_keys(self, _exchange: Exchange, data: bytes) -> Work:
        body = parse_body(data, KeyRevocation)
        if (body.key_ids is None) == (body.selection is None):
            raise BadRequest("invalid_parameter", "expected either key_ids or selection")

        def revoke(database: Database, actor: str) -> Any:
            registry = StaticKeyRegistry(database, b"")
            if body.selection is not None:
                keys = registry.select(body.selection)
            else:
                keys = registry.find(body.key_ids or ())
            if not body.dry_run:
                keys = registry.revoke([one.key_id for one in keys], actor=actor)
            return [describe(one) for one in keys]

        return revoke

    def _reading(self, read: Callable[[Database], Any]) -> Any:
        async def endpoint(exchange: Exchange) -> None:
            _verify_no_query(exchange)
            await exchange.respond(200, await self._store.call(read))

        return endpoint

    def _changing(self, build: Build, *, people_only: bool = False) -> Any:
        async def endpoint(exchange: Exchange) -> None:
            if people_only:
                _verify_person(exchange)
            _verify_no_query(exchange)
            data = await exchange.read_body()
            work, actor, source = build(exchange, data), actor_of(exchange), _source_of(exchange)

            def change(database: Database) -> Any:
                with database.asked_from(source):
                    return work(database, actor)

            await exchange.respond(200, await self._store.call(change))

        return endpoint


def _by_id(change: Callable[[Database, str, str], Any]) -> Build:
    """A change of one account that needs no more than its id."""

    def build(exchange: Exchange, data: bytes) -> Work:
        parse_body(data or b"{}", Nothing)
        return lambda database, actor: describe(change(database, exchange.segment, actor))

    return build


def _verify_no_query(exchange: Exchange) -> None:
    """No route takes one: a list that looks filtered and is not would mislead."""
    if exchange.query:
        name = exchange.query.decode("ascii", "replace").split("&")[0].split("=")[0][:64]
        raise BadRequest("unknown_parameter", f"{name}: this route takes no query", parameter=name)


def actor_of(exchange: Exchange) -> str:
    """Who a change is recorded under."""
    who = exchange.identified
    return f"client:{who.client_id}" if who.subject == who.client_id else f"user:{who.subject}"


def _source_of(exchange: Exchange) -> Source:
    who = exchange.identified
    return Source(exchange.source_address, exchange.source_port, who.client_id, who.token_id)


def _verify_may_replace(exchange: Exchange, account: Client | User | None) -> None:
    """What a privileged account signs in by is replaced by people only, as its role is granted."""
    if account is not None and account.role is not Role.USER:
        _verify_person(exchange)


def _verify_person(exchange: Exchange) -> None:
    who = exchange.identified
    if not who.is_person:
        raise Forbidden(
            "needs_a_person",
            "privileged roles, and what they sign in by, are for people who signed in",
            'Bearer realm="casemate"',
        )
