//! Which rows of a column have a value: an Arrow bitmap, made only when a row has none.

/// Bits for `rows` rows; while none is null there is no bitmap.
#[derive(Default)]
pub struct Validity {
    bits: Vec<u8>,
    rows: usize,
    pub nulls: usize,
}

impl Validity {
    #[inline]
    pub fn valid(&mut self) {
        if self.nulls > 0 {
            if self.rows.is_multiple_of(8) {
                self.bits.push(0);
            }
            self.bits[self.rows / 8] |= 1 << (self.rows % 8);
        }
        self.rows += 1;
    }

    pub fn null(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        if self.nulls == 0 {
            self.bits = vec![0xff; self.rows.div_ceil(8)];
            if !self.rows.is_multiple_of(8) {
                *self.bits.last_mut().expect("not empty") = (1 << (self.rows % 8)) - 1;
            }
        }
        self.nulls += count;
        self.rows += count;
        self.bits.resize(self.rows.div_ceil(8), 0);
    }

    pub fn is_valid(&self, row: usize) -> bool {
        self.nulls == 0 || self.bits[row / 8] >> (row % 8) & 1 == 1
    }

    /// Arrow's buffer; `None`: all rows have a value.
    pub fn finish(self) -> Option<Vec<u8>> {
        (self.nulls > 0).then_some(self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_say_what_was_pushed() {
        for lead in 0..20 {
            for gap in 1..20 {
                let mut validity = Validity::default();
                (0..lead).for_each(|_| validity.valid());
                validity.null(gap);
                (0..10).for_each(|_| validity.valid());
                for row in 0..lead + gap + 10 {
                    assert_eq!(validity.is_valid(row), row < lead || row >= lead + gap);
                }
                assert_eq!(validity.nulls, gap);
                assert_eq!(validity.finish().map(|bits| bits.len()), Some((lead + gap + 10).div_ceil(8)));
            }
        }
    }
}
