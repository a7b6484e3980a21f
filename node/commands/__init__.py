"""The commands of `quorumlog`, one module per group; each has `add(commands, common)`.

A command is a function from parsed options to an exit code. What it says goes to stdout if it is the
result, to stderr if it is about the work; nothing else writes to either.
"""
