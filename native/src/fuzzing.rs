//! Doors for the fuzz targets (`native/fuzz`), compiled only for them: what Python would be given, checked.
//!
//! Each door panics when an answer breaks an invariant that the Python side relies on without looking: as
//! many values as rows, offsets that ascend, text that is UTF-8, doubts that ascend and lie in the body.

use crate::column::{Column, Values};
use crate::ndjson::{self, Parsed};
use crate::output::Output;
use crate::row::Limits;
use crate::token_filter;

/// The product's limits, but for small ones that a short input can reach.
pub fn limits(small: bool) -> Limits {
    Limits {
        row_bytes_max: if small { 60 } else { 1 << 20 },
        row_fields: if small { 3 } else { 1000 },
        name_bytes: if small { 5 } else { 256 },
        depth: if small { 2 } else { 32 },
        columns_sure: if small { 4 } else { 200 },
        doubts: if small { 3 } else { 20_000 },
        dictionaries: ["service", "level", "a"].map(String::from).to_vec(),
    }
}

/// One good row: the fields that have a value, nested names joined by dots, values as JSON would show them.
pub type Row = Vec<(String, Shown)>;

#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(Vec<u8>),
}

/// Rows as read, and the doubtful lines' places; `None`: declined.
pub fn lines(body: &[u8], small: bool) -> Option<(Vec<Row>, Vec<(u32, usize, usize)>)> {
    let parsed = ndjson::parse(body, &limits(small))?;
    let doubts: Vec<_> = parsed.doubts.iter().map(|d| (d.number, d.from, d.to)).collect();
    for pair in doubts.windows(2) {
        assert!(pair[0].0 < pair[1].0 && pair[0].2 <= pair[1].1, "doubts do not ascend");
    }
    for &(number, from, to) in &doubts {
        assert!(number >= 1 && from < to && to <= body.len(), "a doubt outside the body");
    }
    Some((finished(parsed), doubts))
}

/// The same of an array at `at`, and the place behind it.
pub fn elements(body: &[u8], at: usize, small: bool) -> Option<(Vec<Row>, usize)> {
    let (parsed, end) = ndjson::elements(body, at, &limits(small), 1000)?;
    assert!(at < end && end <= body.len() && body[end - 1] == b']');
    Some((finished(parsed), end))
}

/// The filter's bytes: whole blocks, and every key of `keys` is in it.
pub fn filter(data: &[u8], offsets: &[i32], words: bool, bits: usize) -> Option<Vec<u8>> {
    let built = token_filter::build(data.to_vec(), offsets, words, bits).ok()?;
    assert!(!built.is_empty() && built.len() % 64 == 0);
    Some(built)
}

fn finished(parsed: Parsed) -> Vec<Row> {
    let rows = read(&parsed.columns, parsed.rows);
    let first = parsed.columns.iter().map(|column| column.name.clone()).next();
    for column in parsed.columns {
        let as_times = Some(&column.name) == first.as_ref();
        drop(Output::new(column, as_times)); // also the way to times, as it would go to Python
    }
    rows
}

fn read(columns: &[Column], rows: usize) -> Vec<Row> {
    let mut found: Vec<Row> = vec![Vec::new(); rows];
    for column in columns {
        assert_eq!(column.rows, rows, "a column of another length");
        let (length, ascending) = match &column.values {
            Values::None => panic!("a column without a value"),
            Values::Int(values) => (values.len(), true),
            Values::Float(values) => (values.len(), values.iter().all(|value| value.is_finite())),
            Values::Bool(values) => (values.len(), true),
            Values::Text(text) => (text.offsets.len() - 1, text.offsets.is_sorted()),
            Values::Dictionary(indices, _) => (indices.len(), true),
        };
        assert!(length == rows && ascending, "values of another length");
        for (row, cells) in found.iter_mut().enumerate() {
            if column.validity.is_valid(row) {
                cells.push((column.name.clone(), shown(&column.values, row)));
            }
        }
    }
    found
}

fn shown(values: &Values, row: usize) -> Shown {
    let text = |bytes: &[u8]| {
        assert!(std::str::from_utf8(bytes).is_ok(), "text that is not UTF-8");
        Shown::Text(bytes.to_vec())
    };
    match values {
        Values::None => unreachable!(),
        Values::Int(values) => Shown::Int(values[row]),
        Values::Float(values) => Shown::Float(values[row]),
        Values::Bool(values) => Shown::Bool(values[row]),
        Values::Text(known) => text(known.value(row)),
        Values::Dictionary(indices, known) => text(known.value(indices[row])),
    }
}
