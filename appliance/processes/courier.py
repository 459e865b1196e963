"""The courier's process: carries requests to witnesses and brings back what they say. It understands neither.

It has the network, and nothing else: no file of the log, no key, no link but to the auditor. What a hostile witness sends it is
bytes, bounded in number, which the auditor parses.
"""

import asyncio
import http.client
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from appliance.auditor.witnesses import WitnessAddress, parse_witnesses
from appliance.errors import LinkClosed
from appliance.ipc.link import Link
from appliance.messages.witnessing import MAX_ANSWER_BYTES, AskWitness, WitnessAnswered
from appliance.processes.member import Member
from security.tls import build_client_context

TIMEOUT_S = 10.0
MAX_AT_ONCE = 4


class Courier:
    """Carries to the configured witnesses."""

    def __init__(
        self, addresses: list[WitnessAddress | None], tls: ssl.SSLContext, executor: ThreadPoolExecutor
    ) -> None:
        self._addresses = addresses
        self._tls = tls
        self._executor = executor
        self._carrying: set[asyncio.Task[None]] = set()

    async def run(self, link: Link) -> None:
        """Serve the auditor until the link ends. Raises: LinkClosed."""
        while True:
            message = await link.receive()
            task = asyncio.create_task(self._carry(link, message))
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)

    async def _carry(self, link: Link, message: AskWitness) -> None:
        loop = asyncio.get_running_loop()
        status, body = await loop.run_in_executor(self._executor, self.post, message.witness, message.body)
        try:
            link.send(WitnessAnswered(message.witness, message.correlation, status, body))
        except LinkClosed:
            return

    def post(self, witness: int, body: bytes) -> tuple[int, bytes]:
        """One exchange: status and body, or 0 and why there was none."""
        address = self._addresses[witness] if witness < len(self._addresses) else None
        if address is None:
            return 0, b"it has no address"
        if address.is_tls:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                address.host, address.port, timeout=TIMEOUT_S, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", f"{address.path}/add-checkpoint", body=body)
            response = connection.getresponse()
            return response.status, response.read(MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return 0, f"{type(error).__name__}: {error}"[:512].encode("ascii", "replace")
        finally:
            connection.close()


async def serve(member: Member) -> None:
    """Serve until drained.

    Raises: KeyUnusable, of either pillar.
    """
    settings = member.config.audit
    addresses = [address for _, address in parse_witnesses(settings.witnesses)]
    ca = settings.witness_ca_certificate
    tls = build_client_context(None if ca is None else Path(ca))
    with ThreadPoolExecutor(max_workers=MAX_AT_ONCE, thread_name_prefix="carry") as executor:
        member.on_link("auditor", Courier(addresses, tls, executor).run)
        await member.ready()
        await member.draining.wait()
