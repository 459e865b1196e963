"""People who sign in at a running appliance's authority, in a browser without scripts, by an application with PKCE."""

import base64
import hashlib
import html
import http.client
import json
import re
import secrets
import time
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from security.passwords import make_code
from tests.support.appliance import Appliance
from tests.support.commands import run_casemate

REDIRECT = "https://app.example/back"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def make_application(appliance: Appliance) -> str:
    """An application that people sign in with; its id."""
    words = ["client", "create", "console", "--application", "--auth", "none", "--redirect-uri", REDIRECT, "--json"]
    return str(json.loads(run_casemate(*words, "--config", str(appliance.config_file)))["client_id"])


class Person:
    """Somebody with a login, a password and an authenticator of their own."""

    def __init__(self, appliance: Appliance, login: str, role: str) -> None:
        self.appliance = appliance
        self.login = login
        words = ["user", "create", login, "--role", role, "--json", "--config", str(appliance.config_file)]
        told: dict[str, Any] = json.loads(run_casemate(*words))
        self.user_id = told["user_id"]
        self._password = told["password"]
        self._is_first = True
        secret = parse_qs(urlsplit(told["totp_uri"]).query)["secret"][0]
        self._totp = base64.b32decode(secret + "=" * (-len(secret) % 8))
        self._last_step = 0

    def sign_in(self, client_id: str, scope: str) -> str:
        """Log in, change a first password, agree to what the application asks. Gives the access token."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code", "client_id": client_id, "redirect_uri": REDIRECT, "scope": scope,
            "code_challenge": challenge, "code_challenge_method": "S256", "resource": self.appliance.url,
        }  # fmt: skip
        code = parse_qs(urlsplit(self.agree(f"/authorize?{urlencode(asked)}")).query)["code"][0]
        given = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "client_id": client_id}
        browser = _Browser(self.appliance.authority_port, self.appliance)
        status, _, answer = browser.go("POST", "/token", {**given, "code_verifier": verifier})
        assert status == 200, answer
        return str(json.loads(answer)["access_token"])

    def agree(self, path: str) -> str:
        """Follow an application's way to the authority, log in there and agree. Gives the address that leads back."""
        browser = _Browser(self.appliance.authority_port, self.appliance)
        page = browser.go("GET", path)[2]
        fields = {"login": self.login, "password": self._password, "code": self._code()}
        status, location, page = browser.go("POST", "/sign_in", {**_hidden(page), **fields})
        if self._is_first:
            # Digits, since random letters may hold the login, which the password rules refuse.
            current, self._password = self._password, f"aA1-{secrets.randbelow(10**24):024}"
            chosen = {"current": current, "password": self._password, "again": self._password}
            status, location, page = browser.go("POST", "/password", {**_hidden(page), **chosen})
            self._is_first = False
        assert (status, location) == (303, path), (status, location, page)
        page = browser.go("GET", path)[2]
        status, location, page = browser.go("POST", "/authorize", {**_hidden(page), "decision": "approve"})
        assert status == 303, page
        return location

    def _code(self) -> str:
        """A code that was not used yet: the authority takes the next step's as well."""
        step = max(int(time.time()) // 30, self._last_step + 1)
        self._last_step = step
        return make_code(self._totp, step)


class _Browser:
    """Follows forms, keeps one cookie."""

    def __init__(self, port: int, appliance: Appliance) -> None:
        self._port = port
        self._tls = appliance.client.tls
        self._cookie = ""

    def go(self, method: str, path: str, fields: dict[str, str] | None = None) -> tuple[int, str, str]:
        """Status, where it leads, and the page."""
        headers = {"Cookie": self._cookie} if self._cookie else {}
        if fields is not None:
            headers |= {**FORM, "Origin": f"https://127.0.0.1:{self._port}"}
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=30, context=self._tls)
        try:
            connection.request(method, path, None if fields is None else urlencode(fields), headers)
            response = connection.getresponse()
            if cookie := response.headers.get("set-cookie"):
                self._cookie = cookie.partition(";")[0]
            return response.status, response.headers.get("location", ""), response.read().decode()
        finally:
            connection.close()


def _hidden(page: str) -> dict[str, str]:
    form = page.partition("</form>")[0]
    pairs = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form)
    return {name: html.unescape(value) for name, value in pairs}
