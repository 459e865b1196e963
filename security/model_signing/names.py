"""Names of files in a manifest: relative, `/` between components, and one spelling for each file (OMS section 6.1.2).

The same rule for a name that is read from a signature and for one that is found in a folder, so that neither can hold what
the other cannot. Stricter than the format: no control characters and no backslash, which another system reads as a separator.
"""

MAX_NAME_BYTES = 1024
MAX_DEPTH = 32
MAX_FILES = 10_000
DEFAULT_EXCLUSIONS = (".git", ".gitattributes", ".github", ".gitignore")
"""What a signer leaves out at the top of a folder, subfolders and all (OMS section 6.2)."""


def problem_of_name(name: str) -> str | None:
    """What makes a name unusable, for a message; None if it is good."""
    try:
        size_bytes = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "not valid UTF-8"
    if size_bytes > MAX_NAME_BYTES:
        return f"longer than {MAX_NAME_BYTES} bytes"
    if "\\" in name or any(ord(character) < 0x20 or ord(character) == 0x7F for character in name):
        return "has a control character or a backslash"
    components = name.split("/")
    if len(components) > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH} folders"
    if any(component in ("", ".", "..") for component in components):
        return "not a plain relative path"
    return None


def show_name(name: str) -> str:
    """A name as messages give it: as it is where it is harmless, quoted and escaped where a terminal may not be trusted with it."""
    return (
        name if name.isprintable() and " " not in name and len(name) <= MAX_NAME_BYTES else ascii(name[:MAX_NAME_BYTES])
    )
