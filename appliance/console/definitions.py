"""Clients, people, keys, limits: lists, and forms that become requests to the admin API.

What ends or changes something that exists is asked once more on a page of its own. What is shown once (a secret, a first
password) is in the answer to the form and nowhere else.
"""

from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.responses import Response

from appliance.console.appliance_api import ApplianceApi
from appliance.console.errors import Declined
from appliance.console.pages import Pages, redirect
from appliance.console.routes import ConsoleRoutes, Visit
from security.clients import AUTH_METHODS, CLIENT_KINDS
from security.policy.limits import LIMIT_SUBJECTS, Limits
from security.scopes import Role, Scope

LISTS = {
    "/clients": "/admin/clients",
    "/people": "/admin/users",
    "/keys": "/admin/keys",
    "/limits": "/admin/limits",
}
"""Pages, and the lists of the admin API that they show."""


class Question(NamedTuple):
    """A change to something by its id, that is asked once more."""

    path: str
    """Of the page, with `{id}`."""
    asked_of: str
    """The admin API's route, without the id."""
    title: str
    consequence: str
    verb: str
    is_grave: bool = False


QUESTIONS = (
    Question(
        "/clients/disable/{id}",
        "/admin/clients/disable",
        "Disable the client",
        "It gets no tokens from now on, and those that it has are void.",
        "Disable",
        True,
    ),
    Question(
        "/clients/enable/{id}", "/admin/clients/enable", "Enable the client", "It may get tokens again.", "Enable"
    ),
    Question(
        "/clients/rotate/{id}",
        "/admin/clients/rotate",
        "Replace the client's secret",
        "The old secret ends at once. The new one is shown once.",
        "Replace",
        True,
    ),
    Question(
        "/people/disable/{id}",
        "/admin/users/disable",
        "Disable the account",
        "The person cannot sign in from now on, and all of their tokens are void.",
        "Disable",
        True,
    ),
    Question(
        "/people/enable/{id}",
        "/admin/users/enable",
        "Enable the account",
        "The person may sign in again. This also unlocks an account that was locked.",
        "Enable",
    ),
    Question(
        "/people/reset/{id}",
        "/admin/users/reset",
        "Reset the account",
        "Password, one-time codes and passkeys are replaced, and all tokens are void. The new password is shown once.",
        "Reset",
        True,
    ),
    Question("/roles/refuse/{id}", "/admin/roles/refuse", "Refuse the role", "It is not granted.", "Refuse"),
)

APPROVAL = Question(
    "/roles/approve/{id}",
    "/admin/roles/approve",
    "Agree to the role",
    "You are the second person: the role is in force from now on.",
    "Agree",
)
"""Asked with the role that was shown: who agrees to one MUST not give another, for which somebody asked meanwhile."""


class DefinitionRoutes:
    """Lists and changes."""

    def __init__(self, api: ApplianceApi, pages: Pages) -> None:
        self._api = api
        self._pages = pages

    def register(self, routes: ConsoleRoutes) -> None:
        """Add them."""
        for path in LISTS:
            routes.add("GET", path, Scope.IDENTITY_READ, self.show_list)
        for question in QUESTIONS:
            asking, doing = self._build(question)
            routes.add("GET", question.path, Scope.IDENTITY_MANAGE, asking)
            routes.add("POST", question.path, Scope.IDENTITY_MANAGE, doing)
        routes.add("GET", APPROVAL.path, Scope.IDENTITY_MANAGE, self.ask_approval)
        routes.add("POST", APPROVAL.path, Scope.IDENTITY_MANAGE, self.approve)
        for path, handler in {
            "/clients": self.create_client,
            "/people": self.create_person,
            "/keys": self.create_key,
            "/limits": self.set_limits,
            "/limits/remove": self.remove_limits,
            "/keys/revoke": self.revoke_keys,
            "/roles/grant": self.grant,
        }.items():
            routes.add("POST", path, Scope.IDENTITY_MANAGE, handler)

    async def show_list(self, visit: Visit) -> Response:
        """All of one kind."""
        path = visit.request.url.path
        values: dict[str, Any] = {"rows": await self._api.get(visit.session, "administration", LISTS[path])}
        if path == "/people":
            values["pending"] = await self._api.get(visit.session, "administration", "/admin/roles/pending")
        return self._pages.render(
            path.strip("/"),
            visit.session,
            can_manage=Scope.IDENTITY_MANAGE in visit.session.scopes,
            roles=list(Role),
            kinds=CLIENT_KINDS,
            methods=AUTH_METHODS,
            subjects=LIMIT_SUBJECTS,
            limit_names=Limits.__struct_fields__,
            **values,
        )

    def _build(self, question: Question) -> tuple[Any, Any]:
        async def ask(visit: Visit) -> Response:
            return self._confirm(visit, question, visit.request.url.path, {"target": visit.segment})

        async def do(visit: Visit) -> Response:
            path = f"{question.asked_of}/{quote(visit.segment, safe='')}"
            changed = await self._api.send(visit.session, "administration", "POST", path, {})
            return self._answer(visit, changed, _list_of(question.path))

        return ask, do

    async def ask_approval(self, visit: Visit) -> Response:
        """From the list of what waits, which says the role."""
        role = visit.request.query_params.get("role", "")
        if role not in list(Role):
            return redirect("/people")
        question = APPROVAL._replace(title=f"Agree to the role {role}")
        return self._confirm(visit, question, visit.request.url.path, {"target": visit.segment, "role": role})

    async def approve(self, visit: Visit) -> Response:
        """`POST /admin/roles/approve/{id}`."""
        path = f"{APPROVAL.asked_of}/{quote(visit.segment, safe='')}"
        await self._send(visit, "POST", path, {"role": visit.fields.get("role", "")})
        return redirect("/people")

    async def create_client(self, visit: Visit) -> Response:
        """`POST /admin/clients`."""
        fields = visit.fields
        body = _present(fields, "name", "role", "tenant", "kind", "auth_method", "scope", "jwks", "tls_subject")
        body |= _lists(fields, "models", "redirect_uris")
        return self._answer(visit, await self._send(visit, "POST", "/admin/clients", body), "/clients")

    async def create_person(self, visit: Visit) -> Response:
        """`POST /admin/users`."""
        body = _present(visit.fields, "login", "name", "role", "tenant") | _lists(visit.fields, "models")
        return self._answer(visit, await self._send(visit, "POST", "/admin/users", body), "/people")

    async def create_key(self, visit: Visit) -> Response:
        """`POST /admin/keys`."""
        body = _present(visit.fields, "client_id", "name") | {"networks": _split(visit.fields.get("networks", ""))}
        body["days"] = _number(visit.fields, "days")
        return self._answer(visit, await self._send(visit, "POST", "/admin/keys", body), "/keys")

    async def set_limits(self, visit: Visit) -> Response:
        """`PUT /admin/limits`."""
        limits = {name: _number(visit.fields, name) for name in Limits.__struct_fields__}
        body = {**_present(visit.fields, "subject", "name"), "limits": limits}
        await self._send(visit, "PUT", "/admin/limits", body)
        return redirect("/limits")

    async def remove_limits(self, visit: Visit) -> Response:
        """`PUT /admin/limits` without limits; asked once more."""
        body = _present(visit.fields, "subject", "name")
        if "sure" not in visit.fields:
            question = Question(
                "/limits/remove",
                "",
                "Remove the limits",
                "Those of * or of the configuration hold then.",
                "Remove",
                True,
            )
            return self._confirm(visit, question, "/limits/remove", {"target": " ".join(body.values()), **body})
        await self._send(visit, "PUT", "/admin/limits", body)
        return redirect("/limits")

    async def revoke_keys(self, visit: Visit) -> Response:
        """`POST /admin/keys/revoke`: what it would end is shown first, by a dry run."""
        fields = visit.fields
        chosen: dict[str, Any] = _present(fields, "client_id", "tenant")
        if fields.get("everything") == "yes":
            chosen["everything"] = True
        body: dict[str, Any] = {"key_ids": [fields["key_id"]]} if fields.get("key_id") else {"selection": chosen}
        is_sure = "sure" in fields
        keys = await self._send(visit, "POST", "/admin/keys/revoke", {**body, "dry_run": not is_sure})
        if is_sure:
            return redirect("/keys")
        hidden = {name: fields[name] for name in ("key_id", "client_id", "tenant", "everything") if fields.get(name)}
        return self._pages.render("revoke_keys", visit.session, keys=keys, hidden=hidden)

    async def grant(self, visit: Visit) -> Response:
        """`POST /admin/roles/grant/{id}`; asked once more."""
        target, role = visit.fields.get("target", ""), visit.fields.get("role", "")
        if "sure" not in visit.fields:
            question = Question(
                "/roles/grant",
                "",
                f"Grant the role {role}",
                "All tokens of before are void. A privileged role may need a second person, who agrees to it.",
                "Grant",
                True,
            )
            return self._confirm(visit, question, "/roles/grant", {"target": target, "role": role})
        await self._send(visit, "POST", f"/admin/roles/grant/{quote(target, safe='')}", {"role": role})
        return redirect("/people")

    async def _send(self, visit: Visit, method: str, path: str, body: Any) -> Any:
        return await self._api.send(visit.session, "administration", method, path, body)

    def _confirm(self, visit: Visit, question: Question, action: str, hidden: dict[str, str]) -> Response:
        return self._pages.render(
            "confirm", visit.session, question=question, action=action, hidden=hidden, back=_list_of(question.path)
        )

    def _answer(self, visit: Visit, changed: dict[str, Any], back: str) -> Response:
        """What is shown once, or else the list."""
        names = ("client_secret", "key", "password", "totp_uri")
        secrets = {name: changed[name] for name in names if changed.get(name)}
        if not secrets:
            return redirect(back)
        shown = {name: changed[name] for name in ("client_id", "login", "key_id", "name") if changed.get(name)}
        return self._pages.render("shown_once", visit.session, shown=shown, secrets=secrets, back=back)


def _list_of(path: str) -> str:
    first = path.split("/")[1]
    return "/people" if first == "roles" else f"/{first}"


def _present(fields: dict[str, str], *names: str) -> dict[str, Any]:
    """What was filled in."""
    return {name: text for name in names if (text := fields.get(name, "").strip())}


def _lists(fields: dict[str, str], *names: str) -> dict[str, Any]:
    return {name: found for name in names if (found := _split(fields.get(name, "")))}


def _split(text: str) -> list[str]:
    """Entries with commas or ends of lines between them."""
    return [entry.strip() for line in text.splitlines() for entry in line.split(",") if entry.strip()]


def _number(fields: dict[str, str], name: str) -> int:
    """A whole number; empty is 0. Raises: Declined."""
    text = fields.get(name, "").strip() or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise Declined(400, "invalid_parameter", f"{name}: expected a whole number")
    return int(text)
