//! One column while rows come: its type follows from its values, as in `row_columns.column_of`.
//!
//! All of one kind: that kind. Whole numbers and decimals: double, where that loses nothing. Anything
//! else: text, numbers as Python's json writes them.

use crate::dictionary::Dictionary;
use crate::text;
use crate::validity::Validity;

/// Whole numbers below are exact as doubles.
const EXACT: i64 = 1 << 53;

/// A value of a row; text by its place in the body or in the row's scratch.
#[derive(Clone, Copy)]
pub enum Value {
    Body(u32, u32),
    Scratch(u32, u32),
    Int(i64),
    Float(f64),
    Bool(bool),
}

/// The batch cannot be done here.
pub struct NotMine;

#[derive(Default)]
pub struct Text {
    pub offsets: Vec<i32>,
    pub data: Vec<u8>,
}

impl Text {
    fn new(rows: usize) -> Self {
        Text { offsets: vec![0; rows + 1], data: Vec::new() }
    }

    #[inline]
    fn push(&mut self, value: &[u8]) -> Result<(), NotMine> {
        self.data.extend_from_slice(value);
        self.offsets.push(i32::try_from(self.data.len()).map_err(|_| NotMine)?);
        Ok(())
    }

    pub fn value(&self, row: usize) -> &[u8] {
        &self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }
}

pub enum Values {
    None,
    Int(Vec<i64>),
    Float(Vec<f64>),
    Bool(Vec<bool>),
    Text(Text),
    Dictionary(Vec<i32>, Dictionary),
}

pub struct Column {
    pub name: String,
    pub values: Values,
    pub validity: Validity,
    /// Rows so far, the nulls of the last ones not yet among them.
    pub rows: usize,
    /// The line that last had a value for this column.
    pub line: u32,
    as_dictionary: bool,
    /// All whole numbers so far are exact as doubles.
    exact: bool,
    /// Which of the doubles came as whole numbers: their text would be another.
    whole: Vec<bool>,
}

impl Column {
    pub fn new(name: String, as_dictionary: bool) -> Self {
        Column {
            name,
            values: Values::None,
            validity: Validity::default(),
            rows: 0,
            line: 0,
            as_dictionary,
            exact: true,
            whole: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self.values, Values::None)
    }

    /// Nulls up to `rows`.
    pub fn fill(&mut self, rows: usize) {
        let count = rows - self.rows;
        if count == 0 {
            return;
        }
        self.validity.null(count);
        self.rows = rows;
        match &mut self.values {
            Values::None => {}
            Values::Int(values) => values.resize(rows, 0),
            Values::Float(values) => {
                values.resize(rows, 0.0);
                self.whole.resize(rows, false);
            }
            Values::Bool(values) => values.resize(rows, false),
            Values::Text(values) => values.offsets.resize(rows + 1, values.data.len() as i32),
            Values::Dictionary(values, _) => values.resize(rows, 0),
        }
    }

    /// The value of row `self.rows`.
    #[inline]
    pub fn push(&mut self, value: Value, body: &[u8], scratch: &[u8]) -> Result<(), NotMine> {
        match value {
            Value::Body(from, to) => self.push_text(&body[from as usize..to as usize])?,
            Value::Scratch(from, to) => self.push_text(&scratch[from as usize..to as usize])?,
            Value::Int(number) => self.push_int(number)?,
            Value::Float(number) => self.push_float(number)?,
            Value::Bool(truth) => self.push_bool(truth)?,
        }
        self.validity.valid();
        self.rows += 1;
        Ok(())
    }

    #[inline]
    fn push_text(&mut self, value: &[u8]) -> Result<(), NotMine> {
        match &mut self.values {
            Values::Text(text) => return text.push(value),
            Values::Dictionary(indices, dictionary) => {
                if let Some(index) = dictionary.index(value) {
                    indices.push(index);
                    return Ok(());
                }
            }
            Values::None if self.as_dictionary => {
                let mut dictionary = Dictionary::default();
                if let Some(index) = dictionary.index(value) {
                    let mut indices = vec![0; self.rows];
                    indices.push(index);
                    self.values = Values::Dictionary(indices, dictionary);
                    return Ok(());
                }
            }
            _ => {}
        }
        self.texts()?.push(value)
    }

    fn push_int(&mut self, number: i64) -> Result<(), NotMine> {
        let exact = -EXACT < number && number < EXACT;
        match &mut self.values {
            Values::Int(values) => {
                values.push(number);
                self.exact &= exact;
                return Ok(());
            }
            Values::Float(values) if exact => {
                values.push(number as f64);
                self.whole.push(true);
                return Ok(());
            }
            Values::None => {
                let mut values = vec![0; self.rows];
                values.push(number);
                self.values = Values::Int(values);
                self.exact = exact;
                return Ok(());
            }
            _ => {}
        }
        self.texts()?.push(number.to_string().as_bytes())
    }

    fn push_float(&mut self, number: f64) -> Result<(), NotMine> {
        match &mut self.values {
            Values::Float(values) => {
                values.push(number);
                self.whole.push(false);
                return Ok(());
            }
            Values::Int(values) if self.exact => {
                let mut doubles: Vec<f64> = values.iter().map(|&value| value as f64).collect();
                self.whole = vec![true; doubles.len()];
                doubles.push(number);
                self.whole.push(false);
                self.values = Values::Float(doubles);
                return Ok(());
            }
            Values::None => {
                let mut values = vec![0.0; self.rows];
                values.push(number);
                self.whole = vec![false; values.len()];
                self.values = Values::Float(values);
                return Ok(());
            }
            _ => {}
        }
        self.texts()?.push(text::float(number).as_bytes())
    }

    fn push_bool(&mut self, truth: bool) -> Result<(), NotMine> {
        match &mut self.values {
            Values::Bool(values) => {
                values.push(truth);
                return Ok(());
            }
            Values::None => {
                let mut values = vec![false; self.rows];
                values.push(truth);
                self.values = Values::Bool(values);
                return Ok(());
            }
            _ => {}
        }
        self.texts()?.push(truth_text(truth))
    }

    /// The column as text, whatever it was.
    fn texts(&mut self) -> Result<&mut Text, NotMine> {
        if !matches!(self.values, Values::Text(_)) {
            let old = std::mem::replace(&mut self.values, Values::None);
            self.values = Values::Text(self.as_text(old)?);
        }
        match &mut self.values {
            Values::Text(text) => Ok(text),
            _ => Err(NotMine),
        }
    }

    fn as_text(&self, old: Values) -> Result<Text, NotMine> {
        if matches!(old, Values::None) {
            return Ok(Text::new(self.rows));
        }
        let mut text = Text::new(0);
        for row in 0..self.rows {
            if !self.validity.is_valid(row) {
                text.push(b"")?;
                continue;
            }
            match &old {
                Values::Int(values) => text.push(values[row].to_string().as_bytes())?,
                Values::Float(values) if self.whole[row] => {
                    text.push((values[row] as i64).to_string().as_bytes())?;
                }
                Values::Float(values) => text.push(text::float(values[row]).as_bytes())?,
                Values::Bool(values) => text.push(truth_text(values[row]))?,
                Values::Dictionary(indices, known) => text.push(known.value(indices[row]))?,
                Values::None | Values::Text(_) => return Err(NotMine),
            }
        }
        Ok(text)
    }
}

fn truth_text(truth: bool) -> &'static [u8] {
    if truth { b"true" } else { b"false" }
}
