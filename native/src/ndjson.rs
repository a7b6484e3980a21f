//! JSON lines, or the elements of one array, to columns: what is surely good becomes rows.
//!
//! Invariant: the columns are those that the Python path makes of the same good lines. A line is listed
//! as a doubt when it is bad (the Python path words the reason) or good in a way that is not handled here;
//! an array with such an element is left to the Python path as a whole.

use memchr::memchr;

use crate::column::{Column, Values};
use crate::row::{Limits, Rows, Stop};

/// Places in a row's scratch, which may be four times its body (`[1e15]`), have to fit 32 bits.
const BODY_MAX: usize = 512 << 20;
/// Values and nulls of all columns together; beyond, a sparse batch would take more than its bytes' worth.
const CELLS_MAX: usize = 32 << 20;
/// After so many rows the rest of the body is taken to be like them, and room is made for it.
const SAMPLE_ROWS: usize = 256;
const ROOM_MAX: usize = 4 << 20;

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
    if body.len() > BODY_MAX {
        return None;
    }
    let all_text = simdutf8::basic::from_utf8(body).is_ok();
    let mut rows = Rows::new(body, limits, true);
    let (mut at, mut number) = (0, 0);
    let mut made = Made::default();
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
        made.take(&mut rows, limits)?;
        at = end;
        made.reserve(&mut rows, at);
    }
    Some(made.finished(rows.columns, doubts))
}

/// The elements of the array whose `[` is at `at`, and the place behind its `]`; all objects that are surely
/// good, at most `rows_max` of them, else `None`.
pub fn elements(body: &[u8], at: usize, limits: &Limits, rows_max: usize) -> Option<(Parsed, usize)> {
    if body.len() > BODY_MAX || simdutf8::basic::from_utf8(body).is_err() {
        return None;
    }
    let mut rows = Rows::new(body, limits, false);
    let mut made = Made::default();
    if rows.byte(at) != b'[' {
        return None;
    }
    let mut at = rows.space(at + 1);
    if rows.byte(at) == b']' {
        return Some((made.finished(rows.columns, Vec::new()), at + 1));
    }
    loop {
        let end = rows.row(at, made.rows as u32 + 1).ok()?;
        if end - at > limits.row_bytes_max || made.rows == rows_max {
            return None;
        }
        made.take(&mut rows, limits)?;
        made.reserve(&mut rows, end);
        at = rows.space(end);
        match rows.byte(at) {
            b',' => at = rows.space(at + 1),
            b']' => return Some((made.finished(rows.columns, Vec::new()), at + 1)),
            _ => return None,
        }
    }
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

/// How many rows are in the columns, and which columns have a value, by their first.
#[derive(Default)]
struct Made {
    rows: usize,
    order: Vec<u32>,
}

impl Made {
    /// The row's cells into their columns. `None`: too many columns, or more than memory should take.
    #[inline]
    fn take(&mut self, rows: &mut Rows, limits: &Limits) -> Option<()> {
        for cell in &rows.cells {
            let column = &mut rows.columns[cell.column as usize];
            if column.is_empty() {
                self.order.push(cell.column);
            }
            column.fill(self.rows);
            column.push(cell.value, rows.body, &rows.scratch).ok()?;
        }
        self.rows += 1;
        let live = self.order.len();
        (live <= limits.columns_sure && live * self.rows <= CELLS_MAX).then_some(())
    }

    /// Room for what is left behind `at`, if it is like what came before; once.
    #[inline]
    fn reserve(&self, rows: &mut Rows, at: usize) {
        if self.rows == SAMPLE_ROWS {
            let left = rows.body.len() - at;
            let times = (left + left / 16) / at + 1;
            if times * SAMPLE_ROWS * rows.columns.len() > ROOM_MAX {
                return;
            }
            rows.columns.iter_mut().for_each(|column| column.reserve(times, left));
        }
    }

    fn finished(self, columns: Vec<Column>, doubts: Vec<Doubt>) -> Parsed {
        let mut found: Vec<Option<Column>> = columns.into_iter().map(Some).collect();
        let take = |&at: &u32| found[at as usize].take();
        let mut columns: Vec<Column> = self.order.iter().filter_map(take).collect();
        for column in &mut columns {
            column.fill(self.rows);
            if let Values::Float(values) = &mut column.values {
                values.iter_mut().for_each(|value| *value += 0.0); // -0.0 is 0.0, as a whole zero is
            }
        }
        Parsed { rows: self.rows, columns, doubts }
    }
}
