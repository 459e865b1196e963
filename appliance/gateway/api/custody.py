"""`POST /audit/open/{id}`: an auditor is given what opens the sealed body of a record, once it is recorded who asks.

`GET /audit/rules`, `POST /audit/rules/propose|confirm/{id}|refuse/{id}`: retention, holds, rotation of the log, and that
its clock is right, which an auditor and an administrator decide together. Only people decide: a token that stands for a
program does not.
"""

import base64
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from appliance.gateway.api.log_reading import parse_index, read_by
from appliance.gateway.api.parameters import parse_parameters
from appliance.gateway.body import parse_object
from appliance.gateway.errors import Forbidden, NotFound
from appliance.gateway.exchange import Exchange
from appliance.gateway.flow.bodies import Bodies
from appliance.gateway.peers.auditor import AuditorPeer
from appliance.messages.stewardship import BodyShare, DecideChange, FetchRules, OpenBody, ProposeChange, RulesNow
from audit.sealing import SealedBody
from security.scopes import Role

Text = Annotated[str, Meta(max_length=256)]
Day = Annotated[str, Meta(max_length=10)]


class ChangeFields(Struct, kw_only=True):
    """`/audit/rules/propose`."""

    kind: Literal["retention", "hold", "lift", "rotation", "time"]
    reason: Annotated[str, Meta(min_length=1, max_length=256)]
    retention_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
    tenant: Text = ""
    from_day: Day = ""
    to_day: Day = ""
    hold_id: Text = ""


class CustodyEndpoints:
    """Both halves."""

    def __init__(self, auditor: AuditorPeer, bodies: Bodies) -> None:
        self._auditor = auditor
        self._bodies = bodies

    async def open(self, exchange: Exchange) -> None:
        """The ciphertext, the second share and the escrow of the first."""
        index, by = parse_index(exchange.segment), read_by(exchange)
        share = await self._auditor.open_body(lambda number: OpenBody(number, by, index))
        try:
            sealed = self._bodies.read(_body_of(share))
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise NotFound("record_not_found", f"the sealed body cannot be read: {error}") from error
        body = {
            "ciphertext": base64.b64encode(sealed).decode(),
            "escrow": Raw(share.escrow),
            "purpose": share.purpose,
            "record": Raw(share.record),
            "share": base64.b64encode(share.share).decode(),
            "tenant": share.tenant,
        }
        await exchange.respond(200, body)

    async def show(self, exchange: Exchange) -> None:
        """What is in force, and what waits for its second person."""
        await _respond(exchange, await self._auditor.govern(FetchRules))

    async def propose(self, exchange: Exchange) -> None:
        """The first person."""
        fields = parse_parameters(parse_object(await exchange.read_body()), ChangeFields)
        role, by = _person(exchange), read_by(exchange)
        rules = await self._auditor.govern(
            lambda number: ProposeChange(
                number,
                by,
                role,
                fields.kind,
                fields.reason,
                fields.retention_days,
                fields.tenant,
                fields.from_day,
                fields.to_day,
                fields.hold_id,
            )
        )
        await _respond(exchange, rules)

    async def confirm(self, exchange: Exchange) -> None:
        """The second one."""
        await self._decide(exchange, confirms=True)

    async def refuse(self, exchange: Exchange) -> None:
        """Either of them."""
        await self._decide(exchange, confirms=False)

    async def _decide(self, exchange: Exchange, *, confirms: bool) -> None:
        role, by, proposal = _person(exchange), read_by(exchange), exchange.segment
        await _respond(
            exchange, await self._auditor.govern(lambda number: DecideChange(number, by, role, proposal, confirms))
        )


def _person(exchange: Exchange) -> Literal["auditor", "admin"]:
    """The role of a person who signed in. Raises: Forbidden."""
    who = exchange.identified
    if not who.is_person or who.role not in (Role.AUDITOR, Role.ADMIN):
        reason = "retention, holds and rotation are decided by auditors and administrators who signed in"
        raise Forbidden("needs_a_person", reason, 'Bearer realm="casemate"')
    return "auditor" if who.role == Role.AUDITOR else "admin"


def _body_of(share: BodyShare) -> SealedBody:
    own: dict[str, Any] = msgspec.json.decode(share.record)["unmapped"]["casemate"]
    return msgspec.convert(own[f"{share.purpose}_body"], SealedBody)


async def _respond(exchange: Exchange, now: RulesNow) -> None:
    await exchange.respond(200, {"changed": now.changed_id, "rules": Raw(now.rules)})
