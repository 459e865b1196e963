"""The tables, as the newest migration leaves them. Times are UTC seconds since the epoch; lists are JSON; null is "all" or
"never".
"""

from typing import Any

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Table, Text

METADATA = MetaData()


def _role_grant() -> list[Column[Any]]:
    """`granted_by` and `approved_by` are the two people behind a privileged role; `pending_*` is one that waits for the second."""
    return [
        Column("granted_by", Text, nullable=False),
        Column("approved_by", Text),
        Column("pending_role", Text),
        Column("pending_by", Text),
    ]


CLIENTS = Table(
    "clients",
    METADATA,
    Column("client_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("models", Text),
    Column("auth_method", Text, nullable=False),
    Column("secret_hash", LargeBinary),
    Column("jwks", Text),
    Column("tls_subject", Text),
    Column("redirect_uris", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("secret_created_at", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
    *_role_grant(),
)
"""Programs."""

USERS = Table(
    "users",
    METADATA,
    Column("user_id", Text, primary_key=True),
    Column("login", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("models", Text),
    Column("password_hash", Text, nullable=False),
    Column("password_set_at", BigInteger, nullable=False),
    Column("must_change_password", Integer, nullable=False),
    Column("old_password_hashes", Text, nullable=False),
    Column("totp_secret", LargeBinary),
    Column("created_at", BigInteger, nullable=False),
    Column("unlocked_at", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
    *_role_grant(),
    Column("passkeys", Text, nullable=False, server_default="[]"),
)
"""People."""

STATIC_KEYS = Table(
    "static_keys",
    METADATA,
    Column("key_id", Text, primary_key=True),
    Column("client_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("key_hash", LargeBinary, nullable=False, unique=True),
    Column("networks", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)

LIMITS = Table(
    "limits",
    METADATA,
    Column("subject", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("requests_per_minute", BigInteger, nullable=False),
    Column("tokens_per_minute", BigInteger, nullable=False),
    Column("tokens_per_day", BigInteger, nullable=False),
    Column("tokens_in_flight", BigInteger, nullable=False),
    Column("concurrent_requests", BigInteger, nullable=False),
)
"""`subject` is client, user, tenant or model; `name` is whose, or `*` for all that have none of their own."""

ROLE_MODELS = Table(
    "role_models",
    METADATA,
    Column("role", Text, primary_key=True),
    Column("models", Text, nullable=False),
)

REVOCATIONS = Table(
    "revocations",
    METADATA,
    Column("kind", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Column("revoked_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)
"""`kind` is token (a `jti`), client or subject: of the last two, every token issued at `revoked_at` or before is void."""

CHANGES = Table(
    "changes",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("source", Text, nullable=False, server_default=""),
    sqlite_autoincrement=True,
)
"""The outbox: what waits for its record in the audit log. `source` is JSON; empty for what was done on the host."""

MARKS = Table(
    "marks",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""`generation` counts the changes; `two_person_grants` is 1 where a privileged role needs a second person; `owner`, in a
server's database, tells whose key its secrets are hashed under."""
