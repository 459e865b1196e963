"""What crosses the boundaries between processes, one module an edge: tagged, size-bounded structures.

`engine`: gateway and engine. `audit`: everybody and the auditor. `policy`: gateway and policy. `control`: supervisor and
everybody. Each module ends with one union type per direction; a peer that sends anything else is cut off.
Never pickle, never a class name taken from the wire: the tag selects from a closed union.
"""
