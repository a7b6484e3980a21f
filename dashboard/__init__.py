"""Layer 5: a page to look at the cluster and search its logs, served by any node with the role.

The page is static: three files, no build step. It reads the same public HTTP API as everybody else
(/cluster, /query, /query/histogram), so it can show nothing that a user may not read. Text from logs
reaches the page by `textContent` alone, under a Content-Security-Policy of 'self': a log line cannot
become markup.

Why not a framework? One screen of tables and bars does not need one, and an operator must be able to
open it on a host without a network.
"""
