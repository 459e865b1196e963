"""What `casemate doctor` looks at: the machine, and what the configuration wants of it.

Reading order: `finding`, `machine` (processor, memory, GPU, clock, entropy, disk, kernel), `demands` (what the configuration needs:
sandbox, certificates, models, ports, egress), `examination` (all of it). Everything here reads; nothing is changed or sent.
"""
