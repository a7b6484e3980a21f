//! One row: an object's fields as (column, value) cells. Nothing reaches a column before the row is whole.

use std::collections::HashMap;

use crate::column::{Column, NotMine, Value};
use crate::names::{Lookup, Names, NO_COLUMN, ROOT};
use crate::scan::{number, string_stop, Number};
use crate::text;

/// Keys of one object inside an array; beyond, looking for one that stands twice would take long.
const ARRAY_KEYS_MAX: usize = 32;

/// Why a row is not read here.
pub enum Stop {
    /// This row is bad, or good in a way that only the Python path handles: it decides.
    Doubt,
    /// So is the batch.
    NotMine,
}

impl From<NotMine> for Stop {
    fn from(_: NotMine) -> Self {
        Stop::NotMine
    }
}

pub struct Cell {
    pub column: u32,
    pub value: Value,
}

/// What rows have to keep to; see `ingestor/limits.py`.
#[derive(Clone)]
pub struct Limits {
    pub row_bytes_max: usize,
    pub row_fields: usize,
    pub name_bytes: usize,
    pub depth: usize,
    pub columns_sure: usize,
    /// Lines that the Python path may be asked to judge.
    pub doubts: usize,
    /// Names of columns that are made as dictionaries while their values are texts.
    pub dictionaries: Vec<String>,
}

pub struct Rows<'a> {
    pub body: &'a [u8],
    limits: &'a Limits,
    names: Names,
    by_name: HashMap<String, u32>,
    pub columns: Vec<Column>,
    pub cells: Vec<Cell>,
    pub scratch: Vec<u8>,
    /// Number of the line, from 1; what was seen in it bears this mark.
    line: u32,
}

fn space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\r')) {
        at += 1;
    }
    at
}

impl<'a> Rows<'a> {
    pub fn new(body: &'a [u8], limits: &'a Limits) -> Self {
        Rows {
            body,
            limits,
            names: Names::new(limits.name_bytes),
            by_name: HashMap::new(),
            columns: Vec::new(),
            cells: Vec::new(),
            scratch: Vec::new(),
            line: 0,
        }
    }

    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        self.body.get(at).copied().unwrap_or(0)
    }

    /// The object at `at`, its fields in `cells`; the place behind it.
    pub fn row(&mut self, at: usize, line: u32) -> Result<usize, Stop> {
        self.line = line;
        self.cells.clear();
        self.scratch.clear();
        self.names.begin_row();
        if self.byte(at) != b'{' {
            return Err(Stop::Doubt);
        }
        self.object(at + 1, ROOT, 0)
    }

    /// The fields of an object whose `{` is just before `at`. `depth`: 0 for the row itself.
    fn object(&mut self, at: usize, parent: u32, depth: usize) -> Result<usize, Stop> {
        if depth > self.limits.depth {
            return Err(Stop::Doubt);
        }
        let mut at = space(self.body, at);
        if self.byte(at) == b'}' {
            return Ok(at + 1);
        }
        loop {
            if self.byte(at) != b'"' {
                return Err(Stop::Doubt);
            }
            let (path, end) = self.key(at + 1, parent)?;
            at = end;
            if self.byte(at) != b':' {
                at = space(self.body, at);
                if self.byte(at) != b':' {
                    return Err(Stop::Doubt);
                }
            }
            at = self.value(space(self.body, at + 1), path, depth)?;
            at = space(self.body, at);
            match self.byte(at) {
                b',' => at = space(self.body, at + 1),
                b'}' => return Ok(at + 1),
                _ => return Err(Stop::Doubt),
            }
        }
    }

    #[inline]
    fn key(&mut self, at: usize, parent: u32) -> Result<(u32, usize), Stop> {
        let (path, end) = match self.names.expected(self.body, at, parent) {
            Some(found) => found,
            None => self.other_key(at, parent)?,
        };
        let seen = &mut self.names.paths[path as usize].line;
        if *seen == self.line {
            return Err(Stop::Doubt); // twice in one object
        }
        *seen = self.line;
        Ok((path, end))
    }

    fn other_key(&mut self, at: usize, parent: u32) -> Result<(u32, usize), Stop> {
        let stop = string_stop(self.body, at);
        let (found, end) = match self.byte(stop) {
            b'"' => (self.names.lookup(parent, &self.body[at..stop]), stop + 1),
            b'\\' => {
                let mut key = Vec::new();
                match text::unescape(self.body, at, &mut key) {
                    Some((end, false)) => (self.names.lookup(parent, &key), end),
                    _ => return Err(Stop::Doubt),
                }
            }
            _ => return Err(Stop::Doubt),
        };
        match found {
            Lookup::Found(path) => Ok((path, end)),
            Lookup::Odd => Err(Stop::Doubt),
            Lookup::Full => Err(Stop::NotMine),
        }
    }

    #[inline]
    fn value(&mut self, at: usize, path: u32, depth: usize) -> Result<usize, Stop> {
        let (value, end) = match self.byte(at) {
            b'"' => {
                let stop = string_stop(self.body, at + 1);
                match self.byte(stop) {
                    b'"' => (Value::Body(at as u32 + 1, stop as u32), stop + 1),
                    b'\\' => self.decoded(at + 1)?,
                    _ => return Err(Stop::Doubt),
                }
            }
            b'{' => return self.object(at + 1, path, depth + 1),
            b'[' => {
                let from = self.scratch.len();
                let end = self.array(at + 1, depth + 1)?;
                (Value::Scratch(from as u32, self.scratch.len() as u32), end)
            }
            b't' if self.body[at..].starts_with(b"true") => (Value::Bool(true), at + 4),
            b'f' if self.body[at..].starts_with(b"false") => (Value::Bool(false), at + 5),
            b'n' if self.body[at..].starts_with(b"null") => return Ok(at + 4),
            _ => match number(self.body, at).ok_or(Stop::Doubt)? {
                (Number::Int(number), end) => (Value::Int(number), end),
                (Number::Float(number), end) => (Value::Float(number), end),
            },
        };
        let column = self.column(path);
        let seen = &mut self.columns[column as usize].line;
        if *seen == self.line || self.cells.len() == self.limits.row_fields {
            return Err(Stop::Doubt); // `a.b` and `b` within `a`, or one field too many
        }
        *seen = self.line;
        self.cells.push(Cell { column, value });
        Ok(end)
    }

    fn decoded(&mut self, at: usize) -> Result<(Value, usize), Stop> {
        let from = self.scratch.len();
        let (end, _) = text::unescape(self.body, at, &mut self.scratch).ok_or(Stop::Doubt)?;
        Ok((Value::Scratch(from as u32, self.scratch.len() as u32), end))
    }

    #[inline]
    fn column(&mut self, path: u32) -> u32 {
        let known = self.names.paths[path as usize].column;
        if known != NO_COLUMN {
            return known;
        }
        let name = self.names.paths[path as usize].name.clone();
        let next = self.columns.len() as u32;
        let column = *self.by_name.entry(name.clone()).or_insert(next);
        if column == next {
            let as_dictionary = self.limits.dictionaries.contains(&name);
            self.columns.push(Column::new(name, as_dictionary));
        }
        self.names.paths[path as usize].column = column;
        column
    }

    // ---- arrays, as compact JSON text in `scratch`

    fn array(&mut self, at: usize, depth: usize) -> Result<usize, Stop> {
        if depth > self.limits.depth {
            return Err(Stop::Doubt);
        }
        self.scratch.push(b'[');
        let mut at = space(self.body, at);
        if self.byte(at) == b']' {
            self.scratch.push(b']');
            return Ok(at + 1);
        }
        loop {
            at = space(self.body, self.element(at, depth)?);
            match self.byte(at) {
                b',' => self.scratch.push(b','),
                b']' => {
                    self.scratch.push(b']');
                    return Ok(at + 1);
                }
                _ => return Err(Stop::Doubt),
            }
            at = space(self.body, at + 1);
        }
    }

    fn element(&mut self, at: usize, depth: usize) -> Result<usize, Stop> {
        match self.byte(at) {
            b'"' => self.string_text(at),
            b'[' => self.array(at + 1, depth + 1),
            b'{' => self.object_text(at + 1, depth + 1),
            b't' if self.body[at..].starts_with(b"true") => self.copy(at, 4),
            b'f' if self.body[at..].starts_with(b"false") => self.copy(at, 5),
            b'n' if self.body[at..].starts_with(b"null") => self.copy(at, 4),
            _ => {
                let (number, end) = number(self.body, at).ok_or(Stop::Doubt)?;
                let text = match number {
                    Number::Int(number) => number.to_string(),
                    Number::Float(number) => text::float(number),
                };
                self.scratch.extend_from_slice(text.as_bytes());
                Ok(end)
            }
        }
    }

    fn copy(&mut self, at: usize, size: usize) -> Result<usize, Stop> {
        self.scratch.extend_from_slice(&self.body[at..at + size]);
        Ok(at + size)
    }

    fn string_text(&mut self, at: usize) -> Result<usize, Stop> {
        let mut plain = Vec::new();
        let (end, _) = text::unescape(self.body, at + 1, &mut plain).ok_or(Stop::Doubt)?;
        text::quote(&plain, &mut self.scratch);
        Ok(end)
    }

    fn object_text(&mut self, at: usize, depth: usize) -> Result<usize, Stop> {
        if depth > self.limits.depth {
            return Err(Stop::Doubt);
        }
        self.scratch.push(b'{');
        let mut keys: Vec<(usize, usize)> = Vec::new();
        let mut at = space(self.body, at);
        if self.byte(at) == b'}' {
            self.scratch.push(b'}');
            return Ok(at + 1);
        }
        loop {
            if self.byte(at) != b'"' || keys.len() == ARRAY_KEYS_MAX {
                return Err(Stop::Doubt);
            }
            let from = self.scratch.len();
            at = space(self.body, self.string_text(at)?);
            let key = (from, self.scratch.len());
            if keys.iter().any(|&(a, b)| self.scratch[a..b] == self.scratch[key.0..key.1]) {
                return Err(Stop::Doubt);
            }
            keys.push(key);
            if self.byte(at) != b':' {
                return Err(Stop::Doubt);
            }
            self.scratch.push(b':');
            at = space(self.body, self.element(space(self.body, at + 1), depth)?);
            match self.byte(at) {
                b',' => self.scratch.push(b','),
                b'}' => {
                    self.scratch.push(b'}');
                    return Ok(at + 1);
                }
                _ => return Err(Stop::Doubt),
            }
            at = space(self.body, at + 1);
        }
    }
}
