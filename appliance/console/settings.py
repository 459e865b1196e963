"""`[console]`: the console's section."""

from typing import Annotated

import msgspec

from security.settings import Host, HttpsOrigin


class ConsoleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The web console, a process and a listener of its own: what the admin API and the gateway answer, as pages."""

    enabled: Annotated[
        bool, msgspec.Meta(description="Serve the console. It works through the admin API, which must be enabled too.")
    ] = False
    host: Annotated[Host, msgspec.Meta(description="Address the console listens on.")] = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535, description="TCP port the console listens on.")] = 8446
    url: Annotated[
        HttpsOrigin | None,
        msgspec.Meta(description="URL that browsers reach the console by; by default from host and port."),
    ] = None
    idle_s: Annotated[
        int,
        msgspec.Meta(
            ge=60, le=3600, description="Seconds without a click after which a session is locked and its page hidden."
        ),
    ] = 900
    session_lifetime_s: Annotated[
        int,
        msgspec.Meta(
            ge=300, le=86400, description="Seconds after which people sign in to the console anew, locked or not."
        ),
    ] = 28800
