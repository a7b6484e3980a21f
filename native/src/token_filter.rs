//! Token filters: the builder of `records/token_filter.py`, bit for bit, without a pass per column of bytes.
//!
//! The Python module says what a filter is and probes it; its golden file fixes the bits of both builders.
//! Works on copies of the caller's buffers, so that nothing can change under it while the GIL is released.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

const BLOCK_BYTES: usize = 64;
const LANES: usize = 8;
const KEY_BYTES_MAX: usize = 64;
const M1: u64 = 0x9E37_79B9_7F4A_7C15;
const M2: u64 = 0xBF58_476D_1CE4_E5B9;
const M3: u64 = 0x94D0_49BB_1331_11EB;
const SALTS: [u32; LANES] = [
    0x47B6_137B, 0x4497_4D91, 0x8824_AD5B, 0xA2B7_289D,
    0x7054_95C7, 0x2DF1_424B, 0x9EFC_4947, 0x5C6B_FB31,
];

/// Zeros behind the data, so that eight bytes can be read from any place in it.
const PADDING: usize = 8;
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The byte in a word, 0 for separators. Without a branch or table, so that many go at once.
#[inline]
fn lower(byte: u8) -> u8 {
    let small = byte | 0x20;
    let letter = small.wrapping_sub(b'a') < 26;
    let digit = byte.wrapping_sub(b'0') < 10;
    (small & u8::from(letter).wrapping_neg()) | (byte & u8::from(digit).wrapping_neg())
}

#[inline]
fn eight_at(data: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&data[at..at + 8]);
    u64::from_le_bytes(eight)
}

/// A set of hashes. Slots are found by a multiplier drawn at random, so that no sender can choose words
/// that all fall on one slot; which hashes it holds does not depend on it.
struct HashSet {
    slots: Vec<u64>,
    multiplier: u64,
    shift: u32,
    used: usize,
    has_zero: bool,
}

impl HashSet {
    fn new() -> Self {
        let bits = 12;
        HashSet {
            slots: vec![0; 1 << bits],
            multiplier: RandomState::new().build_hasher().finish() | 1,
            shift: 64 - bits,
            used: 0,
            has_zero: false,
        }
    }

    #[inline]
    fn add(&mut self, hash: u64) {
        if hash == 0 {
            self.has_zero = true;
        } else if self.place(hash) {
            self.used += 1;
            if self.used * 2 > self.slots.len() {
                self.grow();
            }
        }
    }

    /// Whether the hash was new.
    #[inline]
    fn place(&mut self, hash: u64) -> bool {
        let mask = self.slots.len() - 1;
        let mut at = (hash.wrapping_mul(self.multiplier) >> self.shift) as usize;
        loop {
            let found = self.slots[at & mask];
            if found == hash {
                return false;
            }
            if found == 0 {
                self.slots[at & mask] = hash;
                return true;
            }
            at += 1;
        }
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![0; old.len() * 2];
        self.shift -= 1;
        for hash in old.into_iter().filter(|&hash| hash != 0) {
            self.place(hash);
        }
    }

    fn len(&self) -> usize {
        self.used + usize::from(self.has_zero)
    }

    fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let zero = self.has_zero.then_some(0);
        self.slots.iter().copied().filter(|&hash| hash != 0).chain(zero)
    }
}

#[inline]
fn step(state: u64, part: u64) -> u64 {
    let mixed = (state ^ part).wrapping_mul(M2);
    mixed ^ (mixed >> 32)
}

#[inline]
fn finish(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(M2);
    state = (state ^ (state >> 27)).wrapping_mul(M3);
    state ^ (state >> 31)
}

/// The hash of the key `data[start..end]`: its length, then its first 64 bytes, eight at a time.
#[inline]
fn hash_key(data: &[u8], start: usize, end: usize) -> u64 {
    let mut state = ((end - start) as u64).wrapping_mul(M1);
    let mut at = start;
    let last = end.min(start + KEY_BYTES_MAX);
    while at + 8 <= last {
        state = step(state, eight_at(data, at));
        at += 8;
    }
    if at < last {
        state = step(state, eight_at(data, at) & (u64::MAX >> (64 - 8 * (last - at))));
    }
    finish(state)
}

/// Adds the words of `data[at..end]`, lower-case already; separators are 0.
#[inline]
fn add_words(data: &[u8], mut at: usize, end: usize, found: &mut HashSet) {
    while at < end {
        let eight = eight_at(data, at);
        if eight == 0 {
            at += 8;
            continue;
        }
        at += eight.trailing_zeros() as usize / 8;
        let start = at;
        at = word_end(data, start, end);
        if start < at {
            found.add(hash_key(data, start, at));
        }
    }
}

/// Where the first separator from `at` on is, at most `end`.
#[inline]
fn word_end(data: &[u8], mut at: usize, end: usize) -> usize {
    while at < end {
        let eight = eight_at(data, at);
        let zeros = eight.wrapping_sub(ONES) & !eight & HIGHS; // its lowest bit is at the first zero
        if zeros != 0 {
            return end.min(at + zeros.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    end
}

fn filled(found: &HashSet, bits_per_key: usize) -> Vec<u8> {
    let blocks = (found.len() * bits_per_key).div_ceil(BLOCK_BYTES * 8).max(1);
    let mut lanes = vec![0u64; blocks * LANES];
    for hash in found.iter() {
        let first = (((hash >> 32) * blocks as u64) >> 32) as usize * LANES;
        for (lane, salt) in lanes[first..first + LANES].iter_mut().zip(SALTS) {
            *lane |= 1 << ((hash as u32).wrapping_mul(salt) >> 26);
        }
    }
    lanes.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// The filter of the words, or of the whole cells, of a string column.
///
/// `offsets` has one more element than there are rows; cell i is `data[offsets[i]..offsets[i + 1]]`.
pub fn build(mut data: Vec<u8>, offsets: &[i32], words: bool, bits: usize) -> Result<Vec<u8>, String> {
    let length = data.len();
    let fits = |pair: &[i32]| 0 <= pair[0] && pair[0] <= pair[1] && pair[1] as usize <= length;
    if offsets.is_empty() || !offsets.windows(2).all(fits) {
        return Err("offsets do not ascend within the data".into());
    }
    if !(1..=64).contains(&bits) {
        return Err("bits a key must be in 1..=64".into());
    }
    if words {
        for byte in &mut data {
            *byte = lower(*byte);
        }
    }
    data.resize(length + PADDING, 0);
    let mut found = HashSet::new();
    for pair in offsets.windows(2) {
        let (start, end) = (pair[0] as usize, pair[1] as usize);
        if words {
            add_words(&data, start, end, &mut found);
        } else {
            found.add(hash_key(&data, start, end));
        }
    }
    Ok(filled(&found, bits))
}

/// token_filter(data, offsets, words, bits) -> bytes; see `records/token_filter.py`. Releases the GIL.
#[pyfunction]
pub fn token_filter<'py>(
    py: Python<'py>,
    data: PyBuffer<u8>,
    offsets: PyBuffer<i32>,
    words: bool,
    bits: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let (data, offsets) = (data.to_vec(py)?, offsets.to_vec(py)?);
    let built = py.detach(|| build(data, &offsets, words, bits));
    Ok(PyBytes::new(py, &built.map_err(PyValueError::new_err)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_sets_one_bit_a_lane() {
        let filter = build(b"Card!".to_vec(), &[0, 5], true, 16).unwrap();
        assert_eq!(filter.len(), 64);
        assert_eq!(filter.iter().map(|byte| byte.count_ones()).sum::<u32>(), 8);
        assert_eq!(filter, build(b"card".to_vec(), &[0, 4], false, 16).unwrap());
    }

    #[test]
    fn rows_do_not_run_into_each_other() {
        let apart = build(b"ab".to_vec(), &[0, 1, 2], true, 16).unwrap();
        assert_eq!(apart, build(b"a b".to_vec(), &[0, 3], true, 16).unwrap());
        assert_ne!(apart, build(b"ab".to_vec(), &[0, 2], true, 16).unwrap());
    }

    #[test]
    fn bad_offsets_are_refused() {
        for offsets in [&[][..], &[0, 6], &[3, 1], &[-1, 2]] {
            assert!(build(b"hello".to_vec(), offsets, true, 16).is_err());
        }
    }

    #[test]
    fn many_words_grow_the_set() {
        let text: Vec<String> = (0..20_000).map(|n| format!("w{n}")).collect();
        let text = text.join(" ").into_bytes();
        let filter = build(text.clone(), &[0, text.len() as i32], true, 16).unwrap();
        assert_eq!(filter.len(), 20_000 * 16 / 512 * 64);
    }
}
