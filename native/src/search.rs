//! Finds a text in the values of a Parquet page (PLAIN, BYTE_ARRAY) as it was decompressed: no value is
//! copied or looked at alone. One pass for the text over all bytes, one over the lengths.
//!
//! Which rows match is decided in Python: `records/page_search.py` says for which texts this is the answer,
//! and for which only a list of candidates. A page that is not what it seems is declined, not judged.

use memchr::memmem::Finder;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::{Buffer, Data};

/// Bytes of the length that stands before each value.
const PREFIX: usize = 4;

/// Rows that hold the text: their numbers, and if asked for their values as an Arrow column's buffers.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    pub rows: Vec<i32>,
    pub offsets: Vec<i32>,
    pub texts: Vec<u8>,
}

/// The end of the value whose length stands at `at`.
#[inline]
fn value_end(page: &[u8], at: usize) -> Option<usize> {
    let prefix = page.get(at..at.checked_add(PREFIX)?)?;
    let length = u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize;
    let end = (at + PREFIX).checked_add(length)?;
    (end <= page.len()).then_some(end)
}

/// The first place of the text from `from` on.
#[inline]
fn next_from(finder: &Finder<'_>, text: &[u8], from: usize) -> usize {
    finder.find(&text[from..]).map_or(usize::MAX, |at| from + at)
}

/// The rows of `page` that hold `needle`; None if it is not exactly `values` values.
///
/// `fold`: letters of ASCII are equal in either case; `needle` is then lower-case. `keep`: the values too.
pub fn find(page: &[u8], values: usize, needle: &[u8], fold: bool, keep: bool) -> Option<Found> {
    if needle.is_empty() || page.len() > i32::MAX as usize {
        return None;
    }
    let lower = if fold { page.to_ascii_lowercase() } else { Vec::new() };
    let text = if fold { &lower[..] } else { page };
    let finder = Finder::new(needle);
    let mut found = Found { offsets: vec![0], ..Found::default() };
    let mut at = 0;
    let mut place = next_from(&finder, text, 0);
    for row in 0..values {
        let (start, end) = (at + PREFIX, value_end(page, at)?);
        if place < start {
            // It began in a length, or reached over the end of a value: no later one can lie in that value.
            place = next_from(&finder, text, start);
        }
        if place < end && needle.len() <= end - place {
            found.rows.push(row as i32);
            if keep {
                found.texts.extend_from_slice(&page[start..end]);
                found.offsets.push(found.texts.len() as i32);
            }
            place = next_from(&finder, text, end);
        }
        at = end;
    }
    (at == page.len()).then_some(found)
}

type Lent = (Buffer, Buffer, Buffer);

/// find_in_page(page, start, values, needle, fold, keep) -> (rows, offsets, texts) or None; see `find`.
///
/// The values begin at byte `start`. Lets go of the GIL.
#[pyfunction]
pub fn find_in_page(
    py: Python<'_>,
    page: &Bound<'_, PyBytes>,
    start: usize,
    values: usize,
    needle: &Bound<'_, PyBytes>,
    fold: bool,
    keep: bool,
) -> PyResult<Option<Lent>> {
    let (page, needle) = (page.as_bytes(), needle.as_bytes());
    let work = || find(page.get(start..)?, values, needle, fold, keep);
    let caught = py.detach(|| std::panic::catch_unwind(work));
    let found = caught.map_err(|_| PyRuntimeError::new_err("the search kernel panicked"))?;
    let lent = |one: Found| (Data::I32(one.rows), Data::I32(one.offsets), Data::U8(one.texts));
    Ok(found.map(lent).map(|(a, b, c)| (Buffer::new(a), Buffer::new(b), Buffer::new(c))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(values: &[&str]) -> Vec<u8> {
        let one = |text: &&str| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
        values.iter().flat_map(one).collect()
    }

    fn rows(values: &[&str], needle: &str, fold: bool) -> Vec<i32> {
        find(&page(values), values.len(), needle.as_bytes(), fold, false).unwrap().rows
    }

    #[test]
    fn values_that_hold_the_text_are_found_once() {
        let values = ["card declined", "", "declined, declined", "decline", "xdeclined"];
        assert_eq!(rows(&values, "declined", false), [0, 2, 4]);
        assert_eq!(rows(&values, "absent", false), [0; 0]);
    }

    #[test]
    fn a_text_never_reaches_from_one_value_into_the_next() {
        // The length of the second value, 'b', is between them: no match begins in it or ends beyond it.
        let second = "x".repeat('b' as usize);
        assert_eq!(rows(&["a", &second], "ab", false), [0; 0]);
        assert_eq!(rows(&["a", &second], "b\0\0\0x", false), [0; 0]);
        assert_eq!(rows(&["aa", "ab"], "ab", false), [1]);
    }

    #[test]
    fn case_is_ignored_in_values_but_not_in_lengths() {
        let long = "Q".repeat('A' as usize);
        assert_eq!(rows(&["Card", "cARD", &long, "cord"], "card", true), [0, 1]);
        assert_eq!(rows(&[&long, "x"], "qqq", true), [0]);
    }

    #[test]
    fn values_come_as_a_column() {
        let found = find(&page(&["one a", "two", "a"]), 3, b"a", false, true).unwrap();
        assert_eq!((found.rows, found.offsets), (vec![0, 2], vec![0, 5, 6]));
        assert_eq!(found.texts, b"one aa");
    }

    #[test]
    fn a_page_that_is_not_whole_is_declined() {
        let whole = page(&["ab", "c"]);
        for cut in 0..whole.len() {
            assert_eq!(find(&whole[..cut], 2, b"c", false, false), None);
        }
        assert_eq!(find(&whole, 1, b"c", false, false), None);
        assert_eq!(find(&whole, 3, b"c", false, false), None);
        assert_eq!(find(&whole, 2, b"", false, false), None);
        assert_eq!(find(&[255; 16], 1, b"c", false, false), None);
    }
}
