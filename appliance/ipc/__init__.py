"""How messages cross process boundaries: length-prefixed msgpack over Unix socket pairs, peers checked by the kernel's word.

Reading order: `frames` (bytes to frames), `edges` (who may talk to whom, in which union), `framed_socket` (one non-blocking
socket), `introduction` (the peer check), `link` (asyncio), `rank_sockets` (which
descriptors lie between the ranks of an engine). Processes that own their time have links in `processes.polling`.

Trust boundary: every byte read here comes from a process that may be captured. Frames are bounded before they are read,
messages are decoded into the closed union of their edge, and a peer that sends anything else is cut off.
"""
