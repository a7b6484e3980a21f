//! Finished columns as what Python makes Arrow arrays of: (name, kind, nulls, validity, buffers).

use crate::buffer::{Buffer, Data};
use crate::column::{Column, Text, Values};
use crate::times::Reader;
use crate::validity::Validity;

/// A column in Arrow's layout. `buffers`: its values; for text offsets and bytes; for a dictionary
/// indices, offsets and bytes of its values; for times microseconds and, if some are finer, the digits
/// below with their own nulls and validity.
pub struct Output {
    name: String,
    kind: &'static str,
    nulls: usize,
    validity: Option<Vec<u8>>,
    buffers: Vec<Data>,
    fine: Option<(usize, Option<Vec<u8>>, Vec<i16>)>,
}

fn bits(values: &[bool]) -> Vec<u8> {
    let byte = |chunk: &[bool]| chunk.iter().rev().fold(0, |sum, &bit| sum << 1 | u8::from(bit));
    values.chunks(8).map(byte).collect()
}

fn trimmed(mut data: Vec<u8>) -> Vec<u8> {
    if data.capacity() - data.len() > data.len() / 4 {
        data.shrink_to_fit();
    }
    data
}

impl Output {
    /// `as_times`: a text column all of whose values are usual times becomes times.
    pub fn new(column: Column, as_times: bool) -> Output {
        let Column { name, values, validity, .. } = column;
        if as_times {
            if let Values::Text(text) = &values {
                if let Some((micros, digits, fine)) = moments(text, &validity) {
                    let fine = (fine.nulls < digits.len())
                        .then(|| (fine.nulls, fine.finish(), digits));
                    return Output {
                        name,
                        kind: "time",
                        nulls: validity.nulls,
                        validity: validity.finish(),
                        buffers: vec![Data::I64(micros)],
                        fine,
                    };
                }
            }
        }
        let (kind, buffers) = match values {
            Values::None => ("null", vec![]),
            Values::Int(values) => ("int64", vec![Data::I64(values)]),
            Values::Float(values) => ("double", vec![Data::F64(values)]),
            Values::Bool(values) => ("bool", vec![Data::U8(bits(&values))]),
            Values::Text(text) => {
                ("string", vec![Data::I32(text.offsets), Data::U8(trimmed(text.data))])
            }
            Values::Dictionary(indices, known) => {
                let (offsets, data) = (Data::I32(known.offsets), Data::U8(known.data));
                ("dictionary", vec![Data::I32(indices), offsets, data])
            }
        };
        Output { name, kind, nulls: validity.nulls, validity: validity.finish(), buffers, fine: None }
    }
}

type Moments = (Vec<i64>, Vec<i16>, Validity);

/// The column as microseconds, digits below, and which rows have such digits; `None`: not all are usual.
fn moments(text: &Text, validity: &Validity) -> Option<Moments> {
    let rows = text.offsets.len() - 1;
    let mut reader = Reader::default();
    let (mut micros, mut digits) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let mut fine = Validity::default();
    for row in 0..rows {
        let moment = if validity.is_valid(row) { reader.read(text.value(row))? } else { (0, -1) };
        micros.push(moment.0);
        digits.push(moment.1.max(0));
        if moment.1 < 0 { fine.null(1) } else { fine.valid() }
    }
    Some((micros, digits, fine))
}

pub type Lent = (String, &'static str, usize, Option<Buffer>, Vec<Buffer>);
pub type Fine = Option<(usize, Option<Buffer>, Buffer)>;

impl Output {
    pub fn into_lent(self) -> (Lent, Fine) {
        let buffers = self.buffers.into_iter().map(Buffer::new).collect();
        let bits = |bits: Option<Vec<u8>>| bits.map(|bits| Buffer::new(Data::U8(bits)));
        let lent = (self.name, self.kind, self.nulls, bits(self.validity), buffers);
        let fine = self.fine.map(|(n, set, digits)| (n, bits(set), Buffer::new(Data::I16(digits))));
        (lent, fine)
    }
}
