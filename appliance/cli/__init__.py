"""The command line: `main` finds the command that is meant, and each command is a module of its own.

Reading order: `main`, `serve`, `refusals` (of starts), `demo`, `config`. A command's module is imported only when it is named.
Who may do what: `client`, `user`, `role`, `quota`, `key` over `definitions`; `backup` (`casemate state`). The log and evidence:
`audit`, `compliance`. Models: `model`, `model_life`, `kernels`, `calibrate`, `draft`, `evaluation` (`casemate eval`). Hosts:
`init`, `trust`, `role_files`, `bundle`, `software` (`upgrade` and its kin), `host_status`, `host_clock`, `advisories`, `doctor`,
`statement`, `segments`, `lending` (`casemate lend-users`). `bench`, `bench_speculation`. What commands share: `commands`,
`caller` (who runs them), `terminal` (what others wrote, made harmless), `state` (which folder), `state_lock`, `service`,
`signing_key`, `progress`, `hashing_progress`.

May import everything of the product. What always holds: exit codes are those that `main` documents; what an operator can
mend is one line on standard error.
"""
