"""The errors that leave `appliance`, split by what the caller does next.

ApplianceFault
├── StartRefused        the operator must change something: do not start
├── ChannelFault        a connection between processes
│   ├── LinkClosed      the peer is gone, or was cut because it did not keep up
│   └── MalformedMessage  the peer broke the protocol: cut it, never answer it
└── CommandFailed       a command cannot do what it was asked; the message is for the terminal
    └── HostBusy        another command works on the same host
"""


class ApplianceFault(Exception):
    """Whatever `appliance` refuses. Messages name the thing, what was expected and what came."""


class StartRefused(ApplianceFault):
    """The process cannot start, and starting it again would not help."""


class ChannelFault(ApplianceFault):
    """A connection between two of our processes cannot be used any more."""


class LinkClosed(ChannelFault):
    """The link has ended."""


class MalformedMessage(ChannelFault):
    """The peer sent what its edge does not allow."""


class CommandFailed(ApplianceFault):
    """A command line that was understood and cannot be carried out."""


class HostBusy(CommandFailed):
    """Another command holds the lock of the host's folder."""


EXIT_MISCONFIGURED = 78
"""sysexits.h EX_CONFIG: the supervisor does not start such a process again during the first start."""
