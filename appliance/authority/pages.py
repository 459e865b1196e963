"""The authority's pages for people, as text: sign in, new password, confirm a device, agree to an application. One style sheet
inside; a script, always the same, only where a passkey is asked for.

Whatever comes from outside goes through `escape`. Every form carries the session's form token.
"""

from collections.abc import Sequence
from html import escape

from security.passwords import PASSWORD_RULES
from security.scopes import SCOPE_DESCRIPTIONS, Scope

STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--soft:#5b636b;--paper:#f7f7f5;--card:#fff;--line:#d9dcdf;--accent:#1f5f8b;
--bad:#a3261f;--on-accent:#fff}
@media (prefers-color-scheme:dark){:root{--ink:#e4e7ea;--soft:#9da5ad;--paper:#16191c;--card:#1f2327;--line:#363c42;
--accent:#7fb8de;--bad:#f09a94;--on-accent:#10202c}}
*{box-sizing:border-box}:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
body{font:16px/1.5 system-ui,sans-serif;margin:0;padding:8vh 1rem 2rem;color:var(--ink);background:var(--paper)}
main{max-width:30rem;margin:0 auto;padding:.4rem 1.4rem 1.4rem;background:var(--card);border:1px solid var(--line);
border-radius:.5rem}a{color:var(--accent)}h1{font-size:1.3rem}label{display:block;margin:.8rem 0 .2rem;font-size:.92rem}
input[type=text],input[type=password]{width:100%;padding:.5rem;font:inherit;color:inherit;background:var(--paper);
border:1px solid var(--soft);border-radius:.35rem}button{margin:1rem .5rem 0 0;padding:.4rem 1.1rem;font:inherit;
cursor:pointer;border:1px solid var(--accent);border-radius:.35rem;background:var(--accent);color:var(--on-accent)}
button[value=deny],form[action="/sign_out"] button{background:transparent;color:var(--accent)}
.notice{white-space:pre-wrap;border-left:4px solid var(--soft);padding-left:.8rem}.error{color:var(--bad)}
.hint{color:var(--soft);font-size:.85rem;margin:.1rem 0 0}
code{font-size:1.2rem;letter-spacing:.1em}
"""


def sign_in_page(then: str, *, banner: str | None, error: str = "", login: str = "") -> str:
    """Login, password, code."""
    return _page(
        "Sign in",
        f"""{_notice(banner)}{_error(error)}
<form method="post" action="/sign_in">
<input type="hidden" name="then" value="{escape(then)}">
<label for="login">Login</label>
<input type="text" id="login" name="login" value="{escape(login)}" autocomplete="username" maxlength="64" required>
<label for="password">Password</label>
<input type="password" id="password" name="password" autocomplete="current-password" maxlength="256" required>
<label for="code">One-time code</label>
<input type="text" id="code" name="code" autocomplete="one-time-code" inputmode="numeric" maxlength="6">
<button type="submit">Sign in</button>
</form>""",
    )


def provider_page(then: str, name: str, *, banner: str | None) -> str:
    """The notice, and the way to the provider."""
    return _page(
        "Sign in",
        f"""{_notice(banner)}
<form method="post" action="/sign_in">
<input type="hidden" name="then" value="{escape(then)}">
<button type="submit">Sign in with {escape(name)}</button>
</form>""",
    )


SCRIPT = """
const form = document.getElementById("key"), field = form.elements.response, error = document.getElementById("error");
document.getElementById("go").addEventListener("click", async () => {
  try {
    const asked = JSON.parse(form.dataset.options), api = PublicKeyCredential, key = form.dataset.kind === "new"
      ? await navigator.credentials.create({publicKey: api.parseCreationOptionsFromJSON(asked)})
      : await navigator.credentials.get({publicKey: api.parseRequestOptionsFromJSON(asked)});
    field.value = JSON.stringify(key.toJSON());
    form.submit();
  } catch (refused) { error.textContent = "The key did not answer, or this browser knows none."; }
});
"""
"""What asks the browser for a passkey, and sends its answer as a form (WebAuthn Level 3 section 5.1). Nothing is put into it."""


def key_page(then: str, ticket: str, options: str) -> str:
    """The second step of a sign-in: the passkey."""
    return _page(
        "Use your passkey",
        f"""<p>Password accepted. Now your security key, or leave and sign in with a one-time code.</p>
<p class="error" id="error"></p>
<form method="post" action="/sign_in/key" id="key" data-kind="known" data-options="{escape(options)}">
<input type="hidden" name="then" value="{escape(then)}">
<input type="hidden" name="ticket" value="{escape(ticket)}">
<input type="hidden" name="response" value="">
<button type="button" id="go">Use the key</button>
</form><script>{SCRIPT}</script>""",
    )


def keys_page(form_token: str, names: Sequence[str], options: str) -> str:
    """The keys that somebody has, and one more."""
    items = "".join(f"<li>{escape(name)}</li>" for name in names) or "<li>none yet</li>"
    return _page(
        "Passkeys",
        f"""<p>Your passkeys; an administrator can remove them by a reset.</p><ul>{items}</ul>
<p class="error" id="error"></p>
<form method="post" action="/keys" id="key" data-kind="new" data-options="{escape(options)}">
{_hidden(form_token)}
<input type="hidden" name="response" value="">
<label for="name">A name for the new one</label>
<input type="text" id="name" name="name" maxlength="40" required>
<button type="button" id="go">Register</button>
</form><script>{SCRIPT}</script>""",
    )


def password_page(then: str, form_token: str, *, error: str = "") -> str:
    """A new password, twice."""
    return _page(
        "Choose a new password",
        f"""{_error(error)}
<form method="post" action="/password">
{_hidden(form_token, then=then)}
<label for="current">Current password</label>
<input type="password" id="current" name="current" autocomplete="current-password" maxlength="256" required>
<label for="password">New password</label>
<input type="password" id="password" name="password" autocomplete="new-password" maxlength="256" aria-describedby="rules" required>
<p class="hint" id="rules">{escape(PASSWORD_RULES)}</p>
<label for="again">The same again</label>
<input type="password" id="again" name="again" autocomplete="new-password" maxlength="256" required>
<button type="submit">Change</button>
</form>""",
    )


def device_code_page(form_token: str, name: str, *, error: str = "") -> str:
    """The code that a device shows."""
    return _page(
        "Connect a device",
        f"""<p>You are signed in as {escape(name)}.</p>{_error(error)}
<form method="get" action="/device">
<label for="user_code">The code that the device shows</label>
<input type="text" id="user_code" name="user_code" autocomplete="off" maxlength="32" required>
<button type="submit">Go on</button>
</form>
<p><a href="/keys">Passkeys</a>, <a href="/password">another password</a></p>{_sign_out(form_token)}""",
    )


def device_confirm_page(form_token: str, name: str, client: str, user_code: str, scopes: Sequence[Scope]) -> str:
    """Whether the device may act for the person. RFC 8628 section 5.4: the code is shown again, to be compared."""
    return _page(
        "Connect a device",
        f"""<p>{escape(name)}, the program <strong>{escape(client)}</strong> wants to act for you.</p>
<p>Its code is <code>{escape(user_code)}</code>. Go on only if you started this yourself and the device shows the same code.</p>
{_scopes(scopes)}
<form method="post" action="/device">
{_hidden(form_token, user_code=user_code)}
<button type="submit" name="decision" value="approve">Allow</button>
<button type="submit" name="decision" value="deny">Refuse</button>
</form>{_sign_out(form_token)}""",
    )


def consent_page(form_token: str, name: str, client: str, query: str, scopes: Sequence[Scope]) -> str:
    """Whether an application may act for the person."""
    return _page(
        "Allow an application",
        f"""<p>{escape(name)}, the application <strong>{escape(client)}</strong> wants to act for you.</p>
{_scopes(scopes)}
<form method="post" action="/authorize">
{_hidden(form_token, query=query)}
<button type="submit" name="decision" value="approve">Allow</button>
<button type="submit" name="decision" value="deny">Refuse</button>
</form>{_sign_out(form_token)}""",
    )


def message_page(title: str, words: str) -> str:
    """A sentence."""
    return _page(title, f"<p>{escape(words)}</p>")


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body><main><h1>{escape(title)}</h1>\n{body}\n</main></body></html>\n"
    )


def _hidden(form_token: str, **fields: str) -> str:
    values = {"form_token": form_token, **fields}
    return "\n".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in values.items())


def _scopes(scopes: Sequence[Scope]) -> str:
    items = "".join(f"<li>{escape(SCOPE_DESCRIPTIONS[scope])}</li>" for scope in scopes)
    return f"<p>It would be able to:</p><ul>{items}</ul>"


def _notice(banner: str | None) -> str:
    return "" if banner is None else f'<p class="notice">{escape(banner)}</p>'


def _error(error: str) -> str:
    return f'<p class="error">{escape(error)}</p>' if error else ""


def _sign_out(form_token: str) -> str:
    return f'<form method="post" action="/sign_out">{_hidden(form_token)}<button type="submit">Sign out</button></form>'
