"""Measurements of the runtime by itself, for `casemate bench`.

`host_time` is what a step costs the host. Nothing here is imported by the engine. What always holds: a measurement changes
nothing that it measures, and prints nothing: whoever asked for it words the result.
"""
