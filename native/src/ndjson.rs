//! JSON lines to columns: whole lines that are surely good become rows, all others are listed.
//!
//! Invariant: the columns are those that the Python path makes of the same good lines. A line is listed
//! as a doubt when it is bad (the Python path words the reason) or good in a way that is not handled here.

use memchr::memchr;

use crate::column::{Column, Values};
use crate::row::{Limits, Rows, Stop};

/// Values and nulls of all columns together; beyond, a sparse batch would take more than its bytes' worth.
const CELLS_MAX: usize = 32 << 20;

/// A line that Python has to judge: its number among the lines that are not blank, from 1, and its bytes.
pub struct Doubt {
    pub number: u32,
    pub from: usize,
    pub to: usize,
}

pub struct Parsed {
    pub rows: usize,
    pub columns: Vec<Column>,
    pub doubts: Vec<Doubt>,
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// `None`: not a batch of ours. Memory: a small multiple of `body`, at most.
pub fn parse(body: &[u8], limits: &Limits) -> Option<Parsed> {
    if body.len() > i32::MAX as usize {
        return None;
    }
    let all_text = simdutf8::basic::from_utf8(body).is_ok();
    let mut rows = Rows::new(body, limits);
    let (mut at, mut count, mut number) = (0, 0, 0);
    let mut live = 0;
    let mut order: Vec<u32> = Vec::new();
    let mut doubts: Vec<Doubt> = Vec::new();
    loop {
        while body.get(at).is_some_and(|&byte| is_blank(byte) || byte == b'\n') {
            at += 1;
        }
        if at >= body.len() {
            break;
        }
        number += 1;
        let read = if all_text { rows.row(at, number) } else { checked(&mut rows, at, number) };
        let end = match read {
            Ok(end) => line_end(body, end).filter(|_| end - at <= limits.row_bytes_max),
            Err(Stop::Doubt) => None,
            Err(Stop::NotMine) => return None,
        };
        let Some(end) = end else {
            if doubts.len() >= limits.doubts {
                return None;
            }
            let doubt = doubtful(body, at, number);
            at = doubt.1;
            doubts.push(doubt.0);
            continue;
        };
        commit(&mut rows, count, &mut live, &mut order)?;
        count += 1;
        if live > limits.columns_sure || live * count > CELLS_MAX {
            return None;
        }
        at = end;
    }
    Some(Parsed { rows: count, columns: finished(rows.columns, &order, count), doubts })
}

/// Where the line ends (its line end or the body's) if nothing but blanks stands behind `at`.
#[inline]
fn line_end(body: &[u8], mut at: usize) -> Option<usize> {
    while body.get(at).is_some_and(|&byte| is_blank(byte)) {
        at += 1;
    }
    match body.get(at) {
        None | Some(b'\n') => Some(at),
        Some(_) => None,
    }
}

/// As `Rows::row`, in a body that is not UTF-8 everywhere.
fn checked(rows: &mut Rows, at: usize, number: u32) -> Result<usize, Stop> {
    let end = memchr(b'\n', &rows.body[at..]).map_or(rows.body.len(), |size| at + size);
    match simdutf8::basic::from_utf8(&rows.body[at..end]) {
        Ok(_) => rows.row(at, number),
        Err(_) => Err(Stop::Doubt),
    }
}

/// The line that begins at `from`, without the blanks at its end, and where the next begins.
fn doubtful(body: &[u8], from: usize, number: u32) -> (Doubt, usize) {
    let end = memchr(b'\n', &body[from..]).map_or(body.len(), |size| from + size);
    let mut to = end;
    while to > from && is_blank(body[to - 1]) {
        to -= 1;
    }
    (Doubt { number, from, to }, end)
}

/// The row's cells into their columns, as row `count`. `order`: columns by their first value.
#[inline]
fn commit(rows: &mut Rows, count: usize, live: &mut usize, order: &mut Vec<u32>) -> Option<()> {
    for cell in &rows.cells {
        let column = &mut rows.columns[cell.column as usize];
        if column.is_empty() {
            *live += 1;
            order.push(cell.column);
        }
        column.fill(count);
        column.push(cell.value, rows.body, &rows.scratch).ok()?;
    }
    Some(())
}

fn finished(columns: Vec<Column>, order: &[u32], count: usize) -> Vec<Column> {
    let mut found: Vec<Option<Column>> = columns.into_iter().map(Some).collect();
    let mut done: Vec<Column> = order.iter().filter_map(|&at| found[at as usize].take()).collect();
    for column in &mut done {
        column.fill(count);
        if let Values::Float(values) = &mut column.values {
            values.iter_mut().for_each(|value| *value += 0.0); // -0.0 is 0.0, as a whole zero is
        }
    }
    done
}
