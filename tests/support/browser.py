"""A real browser, headless, driven over the DevTools protocol through a pair of pipes (`--remote-debugging-pipe`): no port, no
WebSocket, no library. It trusts one server key, given by its digest, and nothing beyond what browsers trust.
"""

import base64
import contextlib
import hashlib
import json
import os
import select
import shutil
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
ANSWER_S = 60.0


def find_browser():
    """Skips where there is none."""
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no chromium here: apt-get install chromium")
    return found


def digest_server_key(certificate_file):
    """What `--ignore-certificate-errors-spki-list` takes: the server's own key, whoever signed for it."""
    certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    der = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


class Browser:
    """One page of one browser. Use `running_browser`."""

    def __init__(self, folder, certificate_file):
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        self._buffer = b""
        self._number = 0
        self._session = None
        self.requests = []

        def take_pipes():
            for source, target in ((os.dup(commands), 3), (os.dup(answers), 4)):
                os.dup2(source, target)

        self.process = subprocess.Popen(
            [
                find_browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--remote-debugging-pipe", "--no-first-run", "--disable-background-networking", "--hide-scrollbars",
                "--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}",
                f"--ignore-certificate-errors-spki-list={digest_server_key(certificate_file)}", "about:blank",
            ],
            preexec_fn=take_pipes, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        target = next(one for one in self.ask("Target.getTargets")["targetInfos"] if one["type"] == "page")
        attached = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **parameters):
        """One command of the protocol, and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + ANSWER_S
        while True:
            answer = self._receive(until)
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _receive(self, until):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._answers, 1 << 20)
            assert part, "the browser ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page."""
        found = self.ask(
            "Runtime.evaluate", expression=expression, userGesture=True, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, (expression, found["exceptionDetails"])
        return found["result"].get("value")

    def wait_for(self, expression, timeout_s=30.0):
        """Until an expression is true, over pages that come and go."""
        until = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(AssertionError):  # A page that is being left has no context.
                if self.evaluate(expression):
                    return
            assert time.monotonic() < until, f"{expression} did not come true at {self.url}: {self.text}"
            time.sleep(0.05)

    def go(self, url):
        """Load a page."""
        self.ask("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def fill(self, **values):
        """Type into fields by their name."""
        for name, value in values.items():
            self.evaluate(f"(field => {{ field.focus(); field.value = ''; }})(document.querySelector('[name={name}]'))")
            self.ask("Input.insertText", text=value)

    def choose(self, name, value):
        """Choose an option of a list."""
        self.evaluate(f"document.querySelector('select[name={name}]').value = {json.dumps(value)}")

    def click(self, text):
        """Click the first button, link or summary that says this."""
        found = self.evaluate(
            f"""(() => {{ const found = [...document.querySelectorAll("button, a, summary")]
            .find(one => one.textContent.trim() === {json.dumps(text)}); if (found) found.click(); return Boolean(found); }})()"""
        )
        assert found, f"{text!r} is not at {self.url}: {self.text}"

    def wait_for_heading(self, text, timeout_s=30.0):
        """Until a page with this heading is there."""
        wanted = json.dumps(text)
        self.wait_for(
            f"document.readyState === 'complete' && document.querySelector('h1')?.textContent === {wanted}", timeout_s
        )

    @property
    def text(self):
        """What a person reads."""
        return self.evaluate("document.body.innerText")

    @property
    def url(self):
        return self.evaluate("location.href")

    def add_authenticator(self):
        """A security key that is always touched, and knows its owner (WebAuthn section 11, virtual authenticators)."""
        self.ask("WebAuthn.enable")
        options = {
            "protocol": "ctap2", "ctap2Version": "ctap2_1", "transport": "usb", "hasUserVerification": True,
            "isUserVerified": True, "hasResidentKey": True, "automaticPresenceSimulation": True,
        }  # fmt: skip
        return self.ask("WebAuthn.addVirtualAuthenticator", options=options)["authenticatorId"]

    def picture(self, path, *, width=1200, height=900, dark=False):
        """A picture of the whole page."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        data = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        """End it."""
        with contextlib.suppress(AssertionError, OSError):
            self._session = None
            self.ask("Browser.close")
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        os.close(self._commands)
        os.close(self._answers)


@contextlib.contextmanager
def running_browser(folder, certificate_file):
    """A browser that ends with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    browser = Browser(folder, certificate_file)
    try:
        yield browser
    finally:
        browser.close()
