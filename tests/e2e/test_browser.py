"""A real browser before a real appliance in production mode: passkeys at the authority, and everything that the console is for."""

import base64
import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from security.passwords import make_code
from tests.support.appliance import running_appliance
from tests.support.browser import running_browser
from tests.support.controls import control
from tests.support.ports import free_port

pytestmark = pytest.mark.long

PASSWORD = "A-Very-Long-Password-1"
WAIVERS = ("signed_models", "frozen_kernels", "two_person_grants", "witness", "own_certificates", "confinement")


class Site:
    """An appliance with a console, and its people."""

    def __init__(self, appliance, console_port):
        self.appliance = appliance
        self.authority = f"https://localhost:{appliance.authority_port}"
        self.console = f"https://localhost:{console_port}"
        self.people = {
            login: appliance.create_user(login, "--name", login.title(), "--role", role)
            for login, role in (("ada", "admin"), ("oscar", "operator"), ("audrey", "auditor"))
        }

    def code(self, login):
        """What the authenticator app shows."""
        (secret,) = parse_qs(urlsplit(self.people[login]["totp_uri"]).query)["secret"]
        return make_code(base64.b32decode(secret + "=" * (-len(secret) % 8)), int(time.time()) // 30)

    def first_sign_in(self, browser, login):
        """Password, one-time code and a password of one's own, wherever the authority asks for them."""
        browser.wait_for_heading("Sign in")
        browser.fill(login=login, password=self.people[login]["password"], code=self.code(login))
        browser.click("Sign in")
        browser.wait_for_heading("Choose a new password")
        browser.fill(current=self.people[login]["password"], password=PASSWORD, again=PASSWORD)
        browser.click("Change")

    def enter_console(self, browser, login):
        """The first time, by one-time code."""
        browser.go(self.console)
        browser.wait_for_heading("Console")
        browser.click("Sign in")
        self.first_sign_in(browser, login)
        browser.wait_for_heading("Allow an application")
        browser.click("Allow")
        browser.wait_for_heading("Overview")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    authority, console, administration = free_port(), free_port(), free_port()
    extra = f"""
issuer = "https://localhost:{authority}"
dpop_nonce_lifetime_s = 60
[administration]
enabled = true
port = {administration}
[console]
enabled = true
port = {console}
url = "https://localhost:{console}"
"""
    head = f'mode = "production"\nwaivers = {json.dumps(WAIVERS)}'
    folder = tmp_path_factory.mktemp("browser") / "appliance"
    with running_appliance(folder, head=head, extra=extra, authority_port=authority) as appliance:
        yield Site(appliance, console)


@pytest.fixture
def browser(site, tmp_path):
    with running_browser(tmp_path, site.appliance.state / "tls" / "server.pem") as made:
        yield made


@control("3.5.3", "IA-2(1)", "IA-2(2)")
def test_a_passkey_is_registered_and_asked_for(site: Site, browser, tmp_path: Path) -> None:
    """WebAuthn as browsers do it, by the browser's own virtual authenticator, then the console by password and passkey."""
    browser.add_authenticator()
    browser.go(f"{site.authority}/device")
    site.first_sign_in(browser, "ada")
    browser.wait_for_heading("Connect a device")
    browser.go(f"{site.authority}/keys")
    browser.wait_for_heading("Passkeys")
    browser.fill(name="blue key")
    browser.click("Register")
    browser.wait_for("document.body.innerText.includes('Registered.')")

    browser.go(site.console)
    browser.click("Sign in")
    browser.wait_for_heading("Sign in")  # Whoever is signed in at the authority signs in anew.
    browser.fill(login="ada", password=PASSWORD)
    browser.click("Sign in")
    browser.wait_for_heading("Use your passkey")
    browser.click("Use the key")
    browser.wait_for_heading("Allow an application")
    browser.click("Allow")
    browser.wait_for_heading("Overview")
    assert "ada (admin, default)" in browser.text

    # What an administrator does, and who is told to have done it.
    browser.click("Clients")
    browser.wait_for_heading("Clients")
    browser.click("Register a client")
    browser.fill(name="shop")
    browser.click("Register")
    browser.wait_for_heading("Shown once")
    assert "cms-" in browser.text
    client_id = browser.evaluate("document.querySelector('p code').textContent")
    browser.click("Done")
    browser.wait_for_heading("Clients")
    browser.go(f"{site.console}/clients/disable/{client_id}")
    browser.click("Disable")
    browser.wait_for_heading("Clients")
    browser.click("People")
    browser.wait_for_heading("People")
    assert "blue key" in browser.text

    changes = search(site, "--kind", "client_disabled")
    assert [one["actor"]["user"]["name"] for one in changes] == [f"user:{site.people['ada']['user_id']}"]
    assert [one["user"]["uid"] for one in changes] == [client_id]
    (signed_in,) = [one for one in search(site, "--kind", "user_signed_in") if "passkey" in one["status_detail"]]
    assert signed_in["user"]["name"] == "ada"


@control("3.1.10", "3.1.11", "AC-12")
def test_an_operator_sees_how_it_stands_locks_and_leaves(site: Site, browser) -> None:
    """Processes, load and log, and nothing of clients or records; a lock asks for password and code again."""
    site.enter_console(browser, "oscar")
    for words in ("authority/0", "engine/0", "Queued", "casemate-demo", "records"):
        assert words in browser.text
    assert "Clients" not in browser.text
    browser.go(f"{site.console}/records")
    browser.wait_for_heading("Not for your role")
    browser.click("Lock")
    browser.wait_for_heading("Locked")
    browser.go(site.console)
    browser.wait_for_heading("Locked")
    assert "engine" not in browser.text
    browser.click("Unlock")
    browser.wait_for_heading("Sign in")
    browser.go(f"{site.console}/locked")
    browser.click("Sign out")
    browser.wait_for_heading("Signed out")
    browser.go(site.console)
    browser.wait_for_heading("Console")
    assert [one["entity"]["type"] for one in search(site, "--kind", "token_revoked")][:1] == ["token"]


@control("3.3.9", "AU-9(4)")
def test_an_auditor_reads_the_log_and_changes_nothing(site: Site, browser) -> None:
    """The search is there, and is itself recorded; there is nothing to change, and nothing was loaded from elsewhere."""
    site.enter_console(browser, "audrey")
    browser.click("Records")
    browser.wait_for_heading("Records")
    browser.fill(kind="user_signed_in")
    browser.click("Search")
    browser.wait_for("location.search.includes('user_signed_in') && document.readyState === 'complete'")
    assert "audrey" in browser.text
    browser.click("Clients")
    browser.wait_for_heading("Clients")
    assert "Register a client" not in browser.text
    searched = search(site, "--kind", "log_searched")
    assert {one["actor"]["user"]["uid"] for one in searched} == {site.people["audrey"]["user_id"]}
    hosts = {urlsplit(url).netloc for url in browser.requests if not url.startswith(("about:", "data:"))}
    assert hosts == {urlsplit(site.console).netloc, urlsplit(site.authority).netloc}


def search(site, *terms):
    """Records, newest first, once the index has them."""
    command = [sys.executable, "-m", "appliance.cli.main", "audit", "search", "--json", *terms]
    index = site.appliance.directory / "own-index.sqlite"
    for _ in range(100):
        done = subprocess.run(
            [*command, "--dir", str(site.appliance.state / "audit" / "log"), "--index", str(index)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        if done.stdout:
            return [json.loads(line) for line in done.stdout.splitlines()]
        time.sleep(0.1)
    raise AssertionError(done.stderr)
