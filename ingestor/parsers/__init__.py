"""Parsers: bytes of one request in, columns out.

Each parser has a fast way that is columnar and strict, and a slow way that names each bad row. The
fast way never decides that a row is bad: at any doubt the whole batch goes the slow way, so that both
give the same verdict. What columns *mean* (which is the time, which the service) is decided after the
parser, in `ingestor.schema`.

    base.py         Parsed, BadRow: what all parsers return
    strict_json.py  one row of JSON, with the exact reason why it is bad
    row_columns.py  rows as dicts to typed columns: nested objects flattened, rare fields folded
    learned.py      the types of fields as seen before: the explicit schema of the fast way
    fast_json.py    pyarrow's reader under that schema, and the checks that make it strict
    json_lines.py   one object a line · json_document.py  an array, or TraceHub's object with `logs`
    csv_rows.py     CSV with a header · plain.py, access_log.py, logfmt.py  raw text
    detect.py       content type and first byte to a parser
"""
