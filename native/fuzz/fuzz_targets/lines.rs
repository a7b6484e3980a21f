//! JSON lines: no panic, no bad memory, and each row that is called good is what serde_json reads there.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quorumlog_native::fuzzing::{lines, Row, Shown};
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    let small = body.first().is_some_and(|byte| byte % 4 == 1);
    let Some((rows, doubts)) = lines(body, small) else { return };
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
    let mut good = rows.iter();
    let mut doubted = doubts.iter().peekable();
    let mut number = 0;
    for line in body.split(|&byte| byte == b'\n') {
        if line.iter().all(|byte| blank(byte)) {
            continue;
        }
        number += 1;
        if doubted.next_if(|doubt| doubt.0 == number).is_none() {
            check(line, good.next().expect("fewer rows than good lines"));
        }
    }
    assert!(good.next().is_none() && doubted.next().is_none());
});

/// A reader that knows nothing of ours sees the same fields; text stands for what has no type in common.
fn check(line: &[u8], row: &Row) {
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        // Halves of characters, which serde refuses; Python (our oracle) replaces them.
        Err(error) if error.to_string().contains("surrogate") || error.to_string().contains("hex escape") => return,
        Err(error) => panic!("a good row that serde refuses: {error}"),
    };
    let mut wanted = Vec::new();
    flatten("", &value, &mut wanted);
    assert_eq!(wanted.len(), row.len(), "other fields: {wanted:?} {row:?}");
    for (name, value) in &wanted {
        let (_, shown) = row.iter().find(|cell| cell.0 == *name).expect("a field is missing");
        assert!(same(value, shown), "{name}: {value} {shown:?}");
    }
}

fn flatten(prefix: &str, value: &Value, out: &mut Vec<(String, Value)>) {
    let Value::Object(fields) = value else { panic!("a row that is no object") };
    for (key, value) in fields {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Null => {}
            Value::Object(_) => flatten(&name, value, out),
            _ => out.push((name, value.clone())),
        }
    }
}

fn same(value: &Value, shown: &Shown) -> bool {
    match (value, shown) {
        (Value::Bool(wanted), Shown::Bool(found)) => wanted == found,
        (Value::Number(wanted), Shown::Int(found)) => wanted.as_i64() == Some(*found) || wanted.as_f64() == Some(0.0) && *found == 0,
        (Value::Number(wanted), Shown::Float(found)) => wanted.as_f64() == Some(*found),
        (Value::String(wanted), Shown::Text(found)) => wanted.as_bytes() == found,
        (Value::Bool(wanted), Shown::Text(found)) => wanted.to_string().as_bytes() == found,
        (Value::Number(wanted), Shown::Text(found)) => {
            let found = std::str::from_utf8(found).ok().and_then(|text| text.parse::<f64>().ok());
            found.is_some() && found == wanted.as_f64()
        }
        (Value::Array(_), Shown::Text(found)) => serde_json::from_slice::<Value>(found).is_ok_and(|found| found == *value),
        _ => false,
    }
}
