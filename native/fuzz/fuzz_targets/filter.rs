//! Token filters: no panic, no bad memory, whatever the offsets; never a filter without a key that it was given.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quorumlog_native::fuzzing::filter;

fuzz_target!(|input: (Vec<i32>, &[u8], bool, u8)| {
    let (mut offsets, data, words, bits) = input;
    if bits & 0x80 != 0 {
        let last = data.len() as i32 + 1; // half of the inputs: offsets that fit
        offsets.iter_mut().for_each(|offset| *offset = offset.rem_euclid(last));
        offsets.sort_unstable();
    }
    let Some(whole) = filter(data, &offsets, words, (bits & 0x7f) as usize) else { return };
    for pair in offsets.windows(2) {
        let cell = &data[pair[0] as usize..pair[1] as usize];
        let alone = filter(cell, &[0, cell.len() as i32], words, 64).expect("a cell of its own");
        if whole.len() == 64 && alone.len() == 64 {
            assert!(alone.iter().zip(&whole).all(|(one, all)| one & all == *one), "a key is missing");
        }
    }
});
