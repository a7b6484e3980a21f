//! Bytes of JSON: where a string stops, what number stands here. Portable, eight bytes at a time.
//!
//! Grammar: RFC 8259 and no more. What is not sure to be right is `None`; the Python reader judges it.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// High bit set in the lowest byte of `x` that is zero; bytes above it may be set falsely.
#[inline(always)]
fn zeros(x: u64) -> u64 {
    x.wrapping_sub(ONES) & !x & HIGHS
}

/// The first place at or after `at` with `"`, `\` or a control character; the length if there is none.
#[inline]
pub fn string_stop(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..at + 8) {
        let x = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        let control = x.wrapping_sub(ONES * 0x20) & !x & HIGHS;
        let found = zeros(x ^ (ONES * 0x22)) | zeros(x ^ (ONES * 0x5c)) | control;
        if found != 0 {
            // The lowest bit of each mask is true, so the lowest of all is.
            return at + (found.trailing_zeros() >> 3) as usize;
        }
        at += 8;
    }
    while let Some(&byte) = bytes.get(at) {
        if byte == b'"' || byte == b'\\' || byte < 0x20 {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

/// A JSON number. Integers outside of 64 bits and decimals beyond a double are no case of ours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Int(i64),
    Float(f64),
}

fn digits_end(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

/// The number at `at` and where it ends.
pub fn number(bytes: &[u8], at: usize) -> Option<(Number, usize)> {
    let negative = bytes.get(at) == Some(&b'-');
    let first = at + usize::from(negative);
    let whole = digits_end(bytes, first);
    if whole == first || (bytes[first] == b'0' && whole > first + 1) {
        return None;
    }
    let mut end = whole;
    if bytes.get(end) == Some(&b'.') {
        end = digits_end(bytes, end + 1);
        if end == whole + 1 {
            return None;
        }
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = matches!(bytes.get(end + 1), Some(b'+' | b'-'));
        let power = end + 1 + usize::from(sign);
        end = digits_end(bytes, power);
        if end == power {
            return None;
        }
    }
    if end > whole {
        let value: f64 = std::str::from_utf8(&bytes[at..end]).ok()?.parse().ok()?;
        return value.is_finite().then_some((Number::Float(value), end));
    }
    if whole - first > 18 {
        let value: i64 = std::str::from_utf8(&bytes[at..end]).ok()?.parse().ok()?;
        return Some((Number::Int(value), end));
    }
    let size = bytes[first..whole].iter().fold(0i64, |sum, byte| sum * 10 + i64::from(byte - b'0'));
    Some((Number::Int(if negative { -size } else { size }), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_stop_at_each_place_of_a_word() {
        for stop in [b'"', b'\\', 0u8, 0x1f] {
            for place in 0..20 {
                let mut bytes = vec![0x80 | b'a'; 20];
                bytes[place] = stop;
                assert_eq!(string_stop(&bytes, 0), place);
                bytes[place] = 0x20;
                assert_eq!(string_stop(&bytes, 0), 20);
            }
        }
    }

    #[test]
    fn numbers_are_rfc_8259() {
        for bad in ["01", "-", "1.", ".5", "1e", "1e+", "-01", "+1", "1e999", "9223372036854775808"] {
            assert_eq!(number(bad.as_bytes(), 0), None, "{bad}");
        }
        assert_eq!(number(b"-0", 0), Some((Number::Int(0), 2)));
        assert_eq!(number(b"-9223372036854775808,", 0), Some((Number::Int(i64::MIN), 20)));
        assert_eq!(number(b"1e2}", 0), Some((Number::Float(100.0), 3)));
    }
}
