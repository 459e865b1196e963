"""What crosses the boundaries between processes, one module an edge: tagged, size-bounded structures.

`engine`: gateway and engine. `audit`: everybody and the auditor; of it `stewardship`: sealed bodies and the rules about
them. `policy`: gateway and policy, authority and policy. `grammar`: gateway and compiler. `reading`: gateway and
reader. `witnessing`: auditor and courier. `control`: supervisor and everybody. Each module ends with one union type per
direction; a peer that sends anything else is cut off. Never pickle, never a class name taken from the wire: the tag
selects from a closed union.
"""
