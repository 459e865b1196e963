"""The command line: `main` finds the command that is meant, and each command is a module of its own.

Reading order: `main`, `serve`, `demo`, `config`, `client`, `audit`. A command's module is imported only when it is named.

May import everything of the product. What always holds: exit codes are those that `main` documents; what an operator can
mend is one line on standard error.
"""
