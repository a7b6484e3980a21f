//! Arrays: no panic, no bad memory; an array that is read whole is one for serde_json, with as many rows.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quorumlog_native::fuzzing::elements;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    let small = body.first().is_some_and(|byte| byte % 4 == 1);
    for at in [0, 1, body.iter().position(|&byte| byte == b'[').unwrap_or(0), body.len()] {
        let Some((rows, end)) = elements(body, at, small) else { continue };
        match serde_json::from_slice::<Vec<Value>>(&body[at..end]) {
            Ok(found) => assert_eq!(found.len(), rows.len()),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("surrogate") || text.contains("hex escape"), "{text}");
            }
        }
    }
});
