"""Confines a process to what its role needs, so that a captured one reaches nothing of the others.

Reading order: `profiles` (what each role may touch: the table), `users` (as whom it runs), `lending` (how a supervisor that is
not root has these), `kernel` (system calls through libc), `abilities` (what a system can enforce), `platform` (what this one
can), `landlock`, `namespaces`, `mounts` (a file system of its own), `privileges`, `launch` (stage one: a launcher applies
them, then execs), `syscalls` (numbers), `bpf` (a filter as a program), `allowlists` (system calls by role), `seccomp` (stage
two: in the process, after its imports).

Two stages, because a lazy import after the sandbox must still find its file, and because the filter refuses `execve`.
Imports the standard library and ctypes only: the launcher runs before every process, and must be quick. What always holds:
nothing here can be undone by the process that it was applied to.
"""
