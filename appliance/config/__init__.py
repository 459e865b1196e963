"""One TOML file, parsed strictly into frozen objects.

Reading order: `schema` (the whole, composed of the sections that the packages own), `loading` (the way from bytes to
it), `reading` (strictness), `locations` (lines, for messages), `together` (rules between sections), `lacks` (what
production would miss), `disk` (the file, and what must lie there), `defaults` (a start without a file), `keys` and `explain` (what
`casemate config explain` and `docs/configuration.md` say), `showing` (settings without secrets, as they are recorded),
`environment` and `child_environment` (the only readers of environment variables).

May import the `settings` modules of all packages, nothing else of them. What always holds: a key that nobody reads is an
error; nothing is clamped or ignored; the same bytes and folder give the same object in every process.
"""

from appliance.config.defaults import default_configuration, load_default_configuration
from appliance.config.errors import ConfigurationRejected, Problem
from appliance.config.lacks import Lack, what_is_lacking
from appliance.config.loading import parse_configuration
from appliance.config.schema import Configuration, served_name_of

__all__ = [
    "Configuration",
    "ConfigurationRejected",
    "Lack",
    "Problem",
    "default_configuration",
    "load_default_configuration",
    "parse_configuration",
    "served_name_of",
    "what_is_lacking",
]
