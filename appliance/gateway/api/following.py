"""The events of a response made in the background, sent to one client: from any number on, at any worker, as often as it likes."""

import asyncio
from contextlib import aclosing

from appliance.gateway.api.background import Background
from appliance.gateway.api.background_store import Key
from appliance.gateway.api.dialects import RESPONSES, responses_error
from appliance.gateway.asgi import Headers
from appliance.gateway.errors import ClientGone, GatewayFault
from appliance.gateway.exchange import Exchange


async def follow(exchange: Exchange, background: Background, key: Key, number: int, headers: Headers) -> None:
    """Send all events from a sequence number on, to the response's end. It goes on if the client leaves.

    Raises: GatewayFault; the client has been told.
    """
    client = _Client()
    exchange.watch(client.leave)
    try:
        await exchange.start_stream(headers, b"")
        async with aclosing(background.events(key, number, client.waker)) as batches:
            async for events in batches:
                if client.has_left:
                    raise ClientGone("client_disconnected", "the client left")
                if events:
                    await exchange.send_chunk(b"".join(events))
                    number += len(events)
        await exchange.end_stream()
    except ClientGone:
        raise
    except GatewayFault as fault:
        await exchange.end_stream(RESPONSES.event(responses_error(fault, number)))
        raise
    finally:
        exchange.unwatch(client.leave)


class _Client:
    """Who listens, and may leave."""

    def __init__(self) -> None:
        self.waker = asyncio.Event()
        self.has_left = False

    def leave(self) -> None:
        """The connection is lost."""
        self.has_left = True
        self.waker.set()
