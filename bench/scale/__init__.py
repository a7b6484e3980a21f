"""How cost and latency change with size: the parts of `python -m bench scale`.

    growth       a store of three nodes from 1 M rows up: cost a row, questions, memory, disk, start-up
    connections  1 to 64 senders at once
    batches      100 to 20,000 rows a batch
    nodes        3 to 9 storage nodes, three copies of each row
    beside       questions while rows come at full rate, and each alone
    memory       resident memory of each node through ingest, questions and rest

Every part writes `scale-PART.json` after each point, and begins after the last one when it is run again
with the same settings; `growth` keeps its store for that. `--minutes` bounds each part: what did not fit is
left out and named in the file. All nodes and the sender share this machine's cores, so more nodes or
connections cannot bring more rows a second here: the curves tell what a row costs.
"""
