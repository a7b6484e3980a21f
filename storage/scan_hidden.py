"""The rows of a piece that watermarks, deletes and blanking hide: a mask, made when the piece is read.

Only pieces of blocks that a rule may touch come here (storage.scan_select); of these the sidecar rules out
those without a row of the rule's services. What a dear predicate matches in a block is remembered like any
other filter's matches.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from records.columns import ERASED_COLUMN
from storage.holdings import BlockPlace
from storage.hot import HotSet
from storage.match_cache import MatchCache
from storage.retention import Rule
from storage.scan_filter import BlockView, evaluate


def hidden_rows(
    hot: HotSet, place: BlockPlace, rules: Sequence[Rule], erased: bool
) -> np.ndarray | None:
    """The mask of a piece's hidden rows; None for none.

    Rows of other tenants than a rule's are matched as well: they are the caller's to leave out.

    Args:
        erased: whether the block may have blanked rows.
    """
    mask: np.ndarray | None = blanked_rows(hot, place) if erased else None
    for rule in rules:
        if place.rows and may_match(hot, place, rule):
            found = _matches(hot, place, rule)
            mask = found if mask is None else mask | found
    return mask if mask is not None and mask.any() else None


def may_match(hot: HotSet, place: BlockPlace, rule: Rule) -> bool:
    """Whether the block can hold rows of the rule, by its times and the services it names."""
    if not rule.time.overlaps(place.min_ts, place.max_ts):
        return False
    return not rule.services or bool(set(hot.sidecar(place).services).intersection(rule.services))


def blanked_rows(hot: HotSet, place: BlockPlace) -> np.ndarray | None:
    """The mask of the rows that were blanked."""
    column = hot.columns(place, [ERASED_COLUMN]).get(ERASED_COLUMN)
    if column is None or not pa.types.is_int8(column.type):
        return None
    return column.is_valid().to_numpy(zero_copy_only=False)


def _matches(hot: HotSet, place: BlockPlace, rule: Rule) -> np.ndarray:
    dear = MatchCache.wants(rule.tree)
    known = hot.matches.get([place], rule.tree)[0] if dear else None
    if known is not None:
        return known
    view = BlockView(lambda name: hot.columns(place, [name]).get(name), place.rows)
    mask = evaluate(rule.tree, view)
    if dear:
        hot.matches.put(place, rule.tree, mask)
    return mask
