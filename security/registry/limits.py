"""Changes to limits: how much a client, a person, a tenant or a model may take. `*` is for all that have none of their own."""

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from security.errors import ClientRejected
from security.policy.limits import LIMIT_SUBJECTS, LimitRule, Limits, verify_rule
from security.registry.database import Database
from security.registry.tables import LIMITS


class LimitRegistry:
    """Limits in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, rule: LimitRule, *, actor: str) -> LimitRule:
        """Set the limits of one subject, whatever they were before."""
        verify_rule(rule)
        with self._database.change("limits_changed", f"{rule.subject}:{rule.name}", actor) as recording:
            before = _find(recording.connection, rule.subject, rule.name)
            _delete(recording.connection, rule.subject, rule.name)
            values = {"subject": rule.subject, "name": rule.name, **msgspec.structs.asdict(rule.limits)}
            recording.connection.execute(LIMITS.insert().values(values))
            recording.before = {} if before is None else msgspec.structs.asdict(before.limits)
            recording.after = msgspec.structs.asdict(rule.limits)
        return rule

    def remove(self, subject: str, name: str, *, actor: str) -> None:
        """Let `*`, or else the configuration, decide again."""
        if subject not in LIMIT_SUBJECTS:
            raise ClientRejected(f"subject {subject[:40]!r}: expected one of {', '.join(LIMIT_SUBJECTS)}")
        with self._database.change("limits_removed", f"{subject}:{name}", actor) as recording:
            before = _find(recording.connection, subject, name)
            if before is None:
                raise ClientRejected(f"{subject} {name[:80]!r} has no limits of its own")
            _delete(recording.connection, subject, name)
            recording.before = msgspec.structs.asdict(before.limits)

    def all(self) -> list[LimitRule]:
        """Every rule."""
        with self._database.transaction() as connection:
            return read_rules(connection)


def _delete(connection: Connection, subject: str, name: str) -> None:
    connection.execute(LIMITS.delete().where(LIMITS.c.subject == subject, LIMITS.c.name == name))


def _find(connection: Connection, subject: str, name: str) -> LimitRule | None:
    return next((rule for rule in read_rules(connection) if (rule.subject, rule.name) == (subject, name)), None)


def read_rules(connection: Connection) -> list[LimitRule]:
    """Every rule, sorted. Raises: RegistryUnusable."""
    rules: list[LimitRule] = []
    for row in connection.execute(sa.select(LIMITS).order_by(LIMITS.c.subject, LIMITS.c.name)):
        fields = dict(row._mapping)
        rules.append(LimitRule(fields.pop("subject"), fields.pop("name"), Limits(**fields)))
    return rules
