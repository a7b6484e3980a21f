"""Layer 6: the composition root and the command line; the only place where everything meets.

    node.py + settings.py   one process: parts and roles put together, started, stopped in order
    cli.py + commands/      `quorumlog`: one file per group of commands, built on the client library alone
    up*.py                  a cluster on this machine: plan (pure), processes, the command
    send*.py · simulate/    a file as pieces; a made-up shop

Rules stay out of here: a node decides nothing, it only hands parts to one another. Commands speak HTTP to a
cluster as any user would; none reaches into the server's packages for an answer.
"""
