//! JSON strings to text and back, as Python's `json` does both (`ensure_ascii=False`, compact).

/// Appends the string whose first byte is at `at` (behind the quote) to `out`, escapes decoded.
///
/// Returns the place behind the closing quote and whether an escape named half a character; such a
/// half becomes U+FFFD. `None`: no string, or bytes that are none of JSON's. `bytes` are UTF-8.
pub fn unescape(bytes: &[u8], mut at: usize, out: &mut Vec<u8>) -> Option<(usize, bool)> {
    let mut halved = false;
    loop {
        let stop = crate::scan::string_stop(bytes, at);
        out.extend_from_slice(&bytes[at..stop]);
        match bytes.get(stop)? {
            b'"' => return Some((stop + 1, halved)),
            b'\\' => {}
            _ => return None,
        }
        at = stop + 2;
        let plain = match bytes.get(stop + 1)? {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 8,
            b'f' => 12,
            byte @ (b'"' | b'\\' | b'/') => *byte,
            b'u' => {
                let (char, end) = unicode(bytes, at)?;
                halved |= char.is_none();
                let mut buffer = [0; 4];
                let char = char.unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(char.encode_utf8(&mut buffer).as_bytes());
                at = end;
                continue;
            }
            _ => return None,
        };
        out.push(plain);
    }
}

/// The character of `XXXX` or `XXXX\uXXXX` at `at`; no character for half of a pair.
fn unicode(bytes: &[u8], at: usize) -> Option<(Option<char>, usize)> {
    let first = hex(bytes, at)?;
    if let Some(char) = char::from_u32(first) {
        return Some((Some(char), at + 4));
    }
    if first < 0xdc00 && bytes.get(at + 4..at + 6) == Some(b"\\u") {
        let second = hex(bytes, at + 6)?;
        if (0xdc00..0xe000).contains(&second) {
            let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return Some((char::from_u32(code), at + 10));
        }
    }
    Some((None, at + 4))
}

fn hex(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 4)?;
    digits.iter().try_fold(0, |sum, &byte| Some(sum << 4 | char::from(byte).to_digit(16)?))
}

/// Appends `text` as a JSON string.
pub fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            0..=31 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// A finite double as Python's `repr` writes it: the fewest digits that mean the same double, with an
/// exponent below 1e-4 and from 1e16 on.
pub fn float(value: f64) -> String {
    let shortest = format!("{value:e}");
    let (mantissa, power) = shortest.split_once('e').expect("LowerExp writes an exponent");
    let power: i32 = power.parse().expect("a whole exponent");
    if !(-4..16).contains(&power) {
        let sign = if power < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", power.abs());
    }
    let plain = format!("{value}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let cases = [
            (1.0, "1.0"), (-0.0, "-0.0"), (1e16, "1e+16"), (1e15, "1000000000000000.0"),
            (1.5e-5, "1.5e-05"), (1e-4, "0.0001"), (5e-324, "5e-324"), (0.1, "0.1"),
            (1.7976931348623157e308, "1.7976931348623157e+308"), (123456.789, "123456.789"),
        ];
        for (value, text) in cases {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn halves_of_characters_are_replaced() {
        let cases: [(&str, &str, bool); 5] = [
            ("\\ud83d\\ude00\"", "😀", false), ("\\ud83dx\"", "\u{fffd}x", true),
            ("\\ude00\\ud83d\"", "\u{fffd}\u{fffd}", true),
            ("\\ud83d\\ud83d\\ude00\"", "\u{fffd}😀", true), ("a\\u0000\"", "a\0", false),
        ];
        for (source, text, halved) in cases {
            let mut out = Vec::new();
            assert_eq!(unescape(source.as_bytes(), 0, &mut out), Some((source.len(), halved)));
            assert_eq!(out, text.as_bytes());
        }
    }
}
