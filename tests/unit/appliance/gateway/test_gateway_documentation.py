"""What a gateway shows is what its documents say, in both directions."""

import re
from pathlib import Path

from appliance.gateway.api.background import Background
from appliance.gateway.api.health import Installation
from appliance.gateway.api.parameters import ACCEPTED_HINTS
from appliance.gateway.api.registration import register_routes
from appliance.gateway.api.response_store import ResponseStore
from appliance.gateway.flow.desk import Desk
from appliance.gateway.metrics import Metrics
from appliance.gateway.models import Models
from appliance.gateway.routes import PUBLIC_ROUTES
from appliance.gateway.settings import GatewaySettings
from tests.support.controls import control

DOCS = Path(__file__).parents[4] / "docs"


def rows(document: str) -> list[list[str]]:
    lines = (DOCS / document).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]


async def test_every_metric_is_documented_as_it_is() -> None:
    """Name, type and labels of each row, and no row without a metric."""
    documented = {row[0].strip("`"): (row[1], row[2]) for row in rows("metrics.md")}
    shown = {instrument.name: (instrument.kind, ", ".join(instrument.labels)) for instrument in Metrics().instruments}
    assert documented == shown


@control("3.4.6", "CM-7")
async def test_every_route_is_documented_with_its_scope() -> None:
    """The table of the API's document is the route table."""
    desk = Desk(GatewaySettings(), Metrics(), [])
    store = ResponseStore(Path("unused"), bytes(32), 0)
    routes = register_routes(
        desk, Models([]), list, Installation("development", [], True), store, Background(store, 1.0)
    )
    documented = {(row[0].strip("`"), row[1]) for row in rows("api.md")}
    assert documented == {(f"{route.method} {route.path}", str(route.scope)) for route in routes}


@control("3.1.1", "3.4.7", "AC-2", "AC-14")
def test_the_public_list_is_pinned() -> None:
    """What strangers may see; a change here is a decision, not an accident."""
    assert PUBLIC_ROUTES == (
        ("GET", "/health"),
        ("GET", "/ready"),
        ("GET", "/.well-known/oauth-protected-resource"),
    )


def test_parameters_that_change_nothing_are_documented() -> None:
    """No parameter is ignored silently."""
    text = (DOCS / "api.md").read_text()
    assert all(f"`{name}`" in text for name in ACCEPTED_HINTS)


def test_every_error_code_is_documented() -> None:
    """Whatever word the gateway can put into `code` stands in the table."""
    source = "\n".join(path.read_text() for path in (DOCS.parent / "appliance" / "gateway").rglob("*.py"))
    raised = re.findall(
        r"(?:BadRequest|NotFound|PeerUnavailable|Overloaded|Draining|EngineFault|DeadlineExceeded|InternalFault|TextRefused"
        r"|UnsupportedMedia|BodyTimeout|BodyTooLarge|MethodNotAllowed|Unauthenticated|Forbidden)\(\s*\"([a-z_0-9]+)\"",
        source,
    )
    text = (DOCS / "api.md").read_text()
    assert len(set(raised)) > 30
    assert sorted(code for code in set(raised) if not re.search(rf"\b{code}\b", text)) == []
