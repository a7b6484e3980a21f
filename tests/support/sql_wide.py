"""Random SQL beyond groups and filters, in the shapes that logs are asked in: joins, windows, subqueries.

Each statement has one answer, whatever the order of the rows: windows are ordered by columns that tie only
for rows that look alike, LIMITs by all that is shown. The reference is the same as sql_reference's.
"""

from random import Random

from tests.support.sql_reference import FIELDS, condition, where

#: All that tells two rows apart; rows equal in all of these are the same answer.
_WHOLE = "timestamp, service, level, message, host, trace_id, status, d, user, ok, region"
_TEXTS = ("service", "level", "message", "host", "trace_id", "user", "region")
_NUMBERS = ("status", "d")

_SCALARS = (
    "upper({t})", "length({t})", "coalesce({t}, 'none')", "{t} || '/' || level", "substr({t}, 2, 3)",
    "concat_ws('-', {t}, host)", "{t} IS DISTINCT FROM host", "nullif({t}, 'pay')", "left({t}, 2)",
    "regexp_extract({t}, '[a-z]+')", "regexp_replace({t}, '[aeiou]', '_', 'g')", "{t} SIMILAR TO '[a-z]+'",
    "regexp_matches({t}, 'CARD|PAY', 'i')", "{t} ILIKE 'P%'", "split_part({t}, ' ', 1)", "{t}::VARCHAR",
    "TRY_CAST({t} AS INTEGER)", "strpos({t}, 'a')", "starts_with({t}, 'p')", "{t} IN ('pay', NULL)",
    "{n}::INTEGER", "{n}::VARCHAR", "{n} + 1", "{n} / 7", "-{n}", "abs({n})", "round({n})", "{n} % 7",
    "CASE WHEN {n} >= 400 THEN 'bad' WHEN {n} IS NULL THEN NULL ELSE 'good' END", "{n} > d",
    "{n} BETWEEN 1 AND 404",
    "greatest({n}, 0)", "ok::INT", "NOT ok", "ok AND {n} > 3", "ok IS NOT TRUE", "{n} IS NULL OR ok",
    "timestamp::DATE", "date_trunc('minute', timestamp)", "extract(hour FROM timestamp)",
    "epoch_us(timestamp)",
    "strftime(timestamp, '%Y-%m-%d %H:%M')", "timestamp + INTERVAL 1 HOUR", "date_part('dow', timestamp)",
    "date_diff('second', TIMESTAMPTZ '2026-01-01', timestamp)", "timestamp AT TIME ZONE 'UTC'",
    "time_bucket(INTERVAL 7 MINUTE, timestamp)",
)  # fmt: skip
_AGGREGATES = (
    "count(*)", "count({t})", "count(DISTINCT {t})", "min({t})", "max({n})", "sum({n})", "avg({n})",
    "quantile_cont({n}, 0.95)", "quantile_disc({n}, 0.5)", "median({n})", "stddev_samp({n})",
    "bool_or(ok)", "bool_and(ok)", "count_if(level = 'error')",
    "string_agg(DISTINCT level, ',' ORDER BY level)",
    "list(DISTINCT service ORDER BY service)", "arg_max({n}, timestamp) IS NOT NULL",
    "sum({n}) FILTER (WHERE ok)",
    "count(*) FILTER ({t} IS NULL)", "max(timestamp) - min(timestamp)", "sum(ok::INT)", "first(1)",
    "approx_count_distinct(level)", "sum(DISTINCT status)", "quantile_cont({n}, [0.5, 0.9])",
)  # fmt: skip
_KEYS = (
    "service", "level", "host", "user", "status", "ok", "upper({t})", "timestamp::DATE", "{n} IS NULL",
    "date_trunc('hour', timestamp)", "CASE WHEN status >= 400 THEN 'bad' ELSE 'good' END", "region",
)  # fmt: skip
_WINDOWS = (
    "row_number() OVER w", "count(*) OVER w", "lag(message) OVER w", "lead(timestamp, 2) OVER w",
    "sum({n}) OVER (PARTITION BY service)", "max({n}) OVER w", "rank() OVER (ORDER BY status NULLS LAST)",
    "dense_rank() OVER (PARTITION BY level ORDER BY timestamp)", "first_value(message) OVER w",
    "count(*) OVER (PARTITION BY host ORDER BY timestamp "
    "RANGE BETWEEN INTERVAL 10 MINUTE PRECEDING AND CURRENT ROW)",
    "timestamp - lag(timestamp) OVER w", "ntile(3) OVER w", "avg({n}) OVER (PARTITION BY level, service)",
)  # fmt: skip


def _filled(rng: Random, text: str) -> str:
    return text.replace("{t}", rng.choice(_TEXTS)).replace("{n}", rng.choice(_NUMBERS))


def _some(rng: Random, pieces: tuple[str, ...], least: int = 1, most: int = 3) -> list[str]:
    return [_filled(rng, one) for one in rng.sample(pieces, rng.randrange(least, most + 1))]


def _numbered(pieces: list[str], prefix: str) -> str:
    return ", ".join(f"{one} AS {prefix}{number}" for number, one in enumerate(pieces))


def _scalars(rng: Random) -> str:
    return f"SELECT {_numbered(_some(rng, _SCALARS, 1, 4), 'x')} FROM logs{where(rng)}"


def _groups(rng: Random) -> str:
    keys = _some(rng, _KEYS, 0, 3)
    values = _numbered(_some(rng, _AGGREGATES, 1, 4), "v")
    having = rng.choice(["", " HAVING count(*) > 1", " HAVING max(status) = 500 OR min(d) IS NULL"])
    if not keys:
        return f"SELECT {values} FROM logs{where(rng)}"
    names = ", ".join(f"k{number}" for number in range(len(keys)))
    group = rng.choice([names, f"ROLLUP ({names})", f"GROUPING SETS (({names}), ())", "ALL"])
    if group.startswith("GROUPING"):
        having = ""
    return (
        f"SELECT {names}, {values} FROM (SELECT *, {_numbered(keys, 'k')} FROM logs{where(rng)}) "
        f"GROUP BY {group}{having}"
    )


def _windows(rng: Random) -> str:
    windows = _numbered(_some(rng, _WINDOWS, 1, 2), "w")
    order = f"PARTITION BY {rng.choice(_TEXTS)} ORDER BY {_WHOLE}"
    qualify = rng.choice(["", " QUALIFY row_number() OVER w <= 2"])
    # rows that look alike may trade places: only what does not depend on it is shown, as sorted sets
    return f"SELECT service, level, {windows} FROM logs{where(rng)} WINDOW w AS ({order}){qualify}"


def _joins(rng: Random) -> str:
    kind = rng.choice(["JOIN", "LEFT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN", "RIGHT JOIN"])
    key = rng.choice(["trace_id", "host", "user", "service"])
    left = f"(SELECT {key}, level, count(*) AS n FROM logs{where(rng)} GROUP BY ALL) a"
    right = f"(SELECT {key}, max(status) AS m FROM logs{where(rng)} GROUP BY ALL) b"
    shown = "a.level, a.n" if kind in ("SEMI JOIN", "ANTI JOIN") else "a.level, a.n, b.m"
    more = rng.choice(["", " AND a.n > 1"])
    return f"SELECT {shown} FROM {left} {kind} {right} ON a.{key} = b.{key}{more}"


def _self_join(rng: Random) -> str:
    return (
        "SELECT count(*), min(b.timestamp - a.timestamp) FROM logs a JOIN logs b USING (trace_id) "
        f"WHERE a.level = 'error' AND b.timestamp >= a.timestamp AND b.{condition(rng, simple=True)}"
    )


def _sets(rng: Random) -> str:
    name = rng.choice(_TEXTS)
    operation = rng.choice(["UNION", "UNION ALL", "EXCEPT", "INTERSECT", "EXCEPT ALL"])
    first = f"SELECT {name} AS x, level FROM logs{where(rng)}"
    return f"{first} {operation} SELECT {name}, level FROM logs{where(rng)}"


def _subqueries(rng: Random) -> str:
    name = rng.choice(["trace_id", "host", "user", "service"])
    inner = f"SELECT {name} FROM logs{where(rng)}"
    return rng.choice(
        [
            f"SELECT count(*), max(status) FROM logs WHERE {name} IN ({inner})",
            f"SELECT count(*) FROM logs WHERE {name} NOT IN ({inner} AND {name} IS NOT NULL)"
            if " WHERE " in inner
            else f"SELECT count(*) FROM logs WHERE {name} NOT IN ({inner})",
            f"SELECT count(*) FROM logs a WHERE EXISTS (SELECT 1 FROM logs b WHERE b.{name} = a.{name} "
            "AND b.timestamp > a.timestamp AND b.level = 'error')",
            f"SELECT service, n FROM (SELECT service, count(*) AS n FROM logs{where(rng)} GROUP BY 1) "
            f"WHERE n >= (SELECT avg(m) FROM (SELECT count(*) AS m FROM logs GROUP BY {name}))",
            "SELECT count(*) FROM logs WHERE status > "
            f"ALL (SELECT coalesce(status, 0) FROM logs{where(rng)})",
        ]
    )


def _pages(rng: Random) -> str:
    """ORDER BY with NULLS, LIMIT, OFFSET; DISTINCT ON. Ordered by all that is shown."""
    names = rng.sample(["service", "level", "status", "d", "user", "timestamp", *FIELDS[-1:]], 3)
    order = ", ".join(
        f"{one} {rng.choice(['ASC', 'DESC'])} NULLS {rng.choice(['FIRST', 'LAST'])}"
        for one in names
    )
    limit = f"LIMIT {rng.choice([0, 1, 5, 10_000])} OFFSET {rng.choice([0, 0, 3, 500])}"
    if rng.random() < 0.3:
        shown = f"DISTINCT ON ({names[0]}) {', '.join(names)}"
        return f"SELECT {shown} FROM logs{where(rng)} ORDER BY {order}"
    distinct = rng.choice(["", "DISTINCT "])
    return f"SELECT {distinct}{', '.join(names)} FROM logs{where(rng)} ORDER BY {order} {limit}"


def _ctes(rng: Random) -> str:
    return (
        f"WITH errors AS (SELECT * FROM logs{where(rng)}), "
        "hours AS MATERIALIZED "
        "(SELECT date_trunc('hour', timestamp) AS h, count(*) AS n FROM errors GROUP BY 1), "
        "total AS (SELECT sum(n) AS t FROM hours) "
        "SELECT h, n, n / t FROM hours, total UNION ALL SELECT NULL, t, NULL FROM total"
    )


def _oddities(rng: Random) -> str:
    return rng.choice(
        [
            f"SELECT count(*) FROM logs{where(rng)} LIMIT 0",
            f"SELECT 1 AS one FROM logs{where(rng)}",
            f"SELECT service AS level, level AS service FROM logs{where(rng)}",
            f"SELECT level, count(*) AS level_1 FROM logs AS logs{where(rng)} GROUP BY level",
            f"SELECT x.service FROM (SELECT service, status FROM logs{where(rng)}) x WHERE x.status = 500",
            f"SELECT min(timestamp) FROM logs{where(rng)} HAVING count(*) > 5",
            "SELECT level, count(*) FROM logs WHERE level = 'ERROR' OR lower(level) = 'error' GROUP BY 1",
            "SELECT count(*) FROM logs WHERE status = '404' OR status IN (200, '500')",
            "SELECT count(*) FROM logs WHERE NOT (status = 404) OR (status = 404) IS NULL",
            "SELECT count(*) FROM logs WHERE service > 'm' AND service <= 'shop' AND level <> ''",
            f"SELECT sum(n) FROM (SELECT count(*) AS n FROM logs{where(rng)} GROUP BY service, level)",
            f"SELECT s FROM (SELECT unnest([service, host]) AS s FROM logs{where(rng)})",
            "SELECT r.range, (SELECT count(*) FROM logs WHERE status = r.range) FROM range(199, 202) r",
        ]
    )


_SHAPES = (_scalars, _scalars, _groups, _groups, _windows, _joins, _self_join, _sets, _subqueries, _pages,
           _pages, _ctes, _oddities)  # fmt: skip


def wide_query(rng: Random) -> str:
    """One SELECT."""
    return rng.choice(_SHAPES)(rng)
