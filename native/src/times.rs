//! RFC 3339 with a zone, to microseconds since 1970: the usual forms alone, the rest stays text.
//!
//! Equal to `ingestor/timestamps.py` where it answers. Source of the calendar: Howard Hinnant,
//! "chrono-Compatible Low-Level Date Algorithms", days_from_civil.

const FIRST_MICROS: i64 = -62_135_596_800_000_000;
const LAST_MICROS: i64 = 253_402_300_799_999_999;
const POWERS: [u32; 10] =
    [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// Microseconds, and the digits below them (0..999; -1 where none were given).
pub type Moment = (i64, i16);

/// Reads times; remembers the minute of the last one, which the next mostly shares.
pub struct Reader {
    minute: [u8; 16],
    seconds: i64,
}

impl Default for Reader {
    fn default() -> Self {
        Reader { minute: *b"1970-01-01T00:00", seconds: 0 }
    }
}

fn two(text: &[u8], at: usize) -> Option<i64> {
    let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| i64::from(tens) * 10 + i64::from(ones))
}

fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let longest = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=longest).contains(&day) {
        return None;
    }
    let shifted = year - i64::from(month <= 2);
    let era = shifted.div_euclid(400);
    let of_era = shifted - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// Seconds since 1970 of `YYYY-MM-DDThh:mm`.
fn minute_seconds(text: &[u8; 16]) -> Option<i64> {
    let marks = text[4] == b'-' && text[7] == b'-' && text[13] == b':';
    if !marks || !matches!(text[10], b'T' | b't' | b' ') {
        return None;
    }
    let year = two(text, 0)? * 100 + two(text, 2)?;
    let (hour, minute) = (two(text, 11)?, two(text, 14)?);
    if hour > 23 || minute > 59 {
        return None;
    }
    Some(days(year, two(text, 5)?, two(text, 8)?)? * 86_400 + hour * 3600 + minute * 60)
}

/// Seconds east of UTC of `Z` or `±hh:mm`.
fn zone(text: &[u8]) -> Option<i64> {
    match text {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (two(text, 1)?, two(text, 4)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let east = hours * 3600 + minutes * 60;
            Some(if *sign == b'-' { -east } else { east })
        }
        _ => None,
    }
}

impl Reader {
    /// The moment that `text` means; `None` for any form but the usual ones.
    pub fn read(&mut self, text: &[u8]) -> Option<Moment> {
        let minute: &[u8; 16] = text.get(..16)?.try_into().ok()?;
        if *minute != self.minute {
            self.seconds = minute_seconds(minute)?;
            self.minute = *minute;
        }
        let rest = &text[16..];
        if rest.len() < 4 || rest[0] != b':' {
            return None;
        }
        let seconds = two(rest, 1)?;
        if seconds > 59 {
            return None;
        }
        let mut at = 3;
        let mut nanos = 0u32;
        if rest[3] == b'.' {
            at = 4;
            while let Some(digit) = rest.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|d| *d <= 9) {
                if at == 13 {
                    return None;
                }
                nanos = nanos * 10 + u32::from(digit);
                at += 1;
            }
            if at == 4 {
                return None;
            }
            nanos *= POWERS[13 - at];
        }
        let east = zone(&rest[at..])?;
        let micros = (self.seconds + seconds - east) * 1_000_000 + i64::from(nanos / 1000);
        if !(FIRST_MICROS..=LAST_MICROS).contains(&micros) {
            return None;
        }
        let fine = if at > 10 { (nanos % 1000) as i16 } else { -1 };
        Some((micros, fine))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_forms() {
        let mut reader = Reader::default();
        let mut read = |text: &str| reader.read(text.as_bytes());
        assert_eq!(read("1970-01-01T00:00:00Z"), Some((0, -1)));
        assert_eq!(read("2026-01-01T00:00:00.009823Z"), Some((1_767_225_600_009_823, -1)));
        assert_eq!(read("2026-01-01T00:00:00.0098231+00:00"), Some((1_767_225_600_009_823, 100)));
        assert_eq!(read("2026-01-01 01:30:00-01:30"), Some((1_767_236_400_000_000, -1)));
        for other in ["", "1", "2026-01-01", "2026-02-29T00:00:00Z", "0000-01-01T00:00:00Z",
                      "2026-01-01T00:00:60Z", "2026-01-01T00:00:00", "2026-01-01T00:00:00.Z",
                      "2026-01-01T00:00:00.1234567890Z", "9999-12-31T23:59:59-00:01"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
