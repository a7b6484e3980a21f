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
    0x47B6_137B,
    0x4497_4D91,
    0x8824_AD5B,
    0xA2B7_289D,
    0x7054_95C7,
    0x2DF1_424B,
    0x9EFC_4947,
    0x5C6B_FB31,
];

/// Bytes that are looked at together: one bit each of a word.
const MASK: usize = 64;
const HIGHS: u64 = 0x8080_8080_8080_8080;
/// Hashes for which room is made before they are seen: a row group's values, and 512 KiB.
const ROOM_MAX: usize = 1 << 15;
/// Brings the lowest bits of eight bytes side by side, into the highest byte.
const GATHER: u64 = 0x0102_0408_1020_4080;

/// Length of the copy of `length` bytes: whole masks, with zeros behind the data, so that its last word has
/// an end, and eight bytes can be read from any place in it.
fn padded(length: usize) -> usize {
    (length / MASK + 2) * MASK
}

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
    /// With room for so many hashes, but not for more than `ROOM_MAX`, before it has to grow.
    fn with_room(hashes: usize) -> Self {
        let bits = (hashes.min(ROOM_MAX) * 2).next_power_of_two().trailing_zeros().max(12);
        HashSet {
            slots: vec![0; 1 << bits],
            multiplier: RandomState::new().build_hasher().finish() | 1,
            shift: 64 - bits,
            used: 0,
            has_zero: false,
        }
    }

    /// Adds few at once (at most a mask's words): room is made before, so that the loop is all there is.
    #[inline]
    fn add_all(&mut self, hashes: &[u64]) {
        while (self.used + hashes.len()) * 2 > self.slots.len() {
            self.grow();
        }
        for &hash in hashes {
            if hash == 0 {
                self.has_zero = true;
            } else {
                self.used += usize::from(place(&mut self.slots, self.multiplier, self.shift, hash));
            }
        }
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![0; old.len() * 2];
        self.shift -= 1;
        for hash in old.into_iter().filter(|&hash| hash != 0) {
            place(&mut self.slots, self.multiplier, self.shift, hash);
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

/// Whether the hash was new. There is a free slot: `slots` are at most half full, and a power of two.
#[inline(always)]
fn place(slots: &mut [u64], multiplier: u64, shift: u32, hash: u64) -> bool {
    let mask = slots.len() - 1;
    let mut at = (hash.wrapping_mul(multiplier) >> shift) as usize;
    loop {
        let found = slots[at & mask];
        if found == hash {
            return false;
        }
        if found == 0 {
            slots[at & mask] = hash;
            return true;
        }
        at += 1;
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

/// Adds the words of all rows; `data` is `padded`, lower-case already, its separators are 0.
///
/// 64 bytes at a time: which of them belong to a word is a mask, and where rows begin is another; from these
/// follows where words begin and end, without a look at single bytes.
fn add_words(data: &[u8], offsets: &[i32], found: &mut HashSet) {
    let mut rows = offsets.iter().map(|&at| at as usize).peekable();
    let (mut starts, mut ends, mut hashes) = ([0; 2 * MASK], [0; 2 * MASK], [0; 2 * MASK]);
    let mut open = 0; // 1: a word began before these bytes; starts[0] says where
    for (number, part) in data.chunks_exact(MASK).enumerate() {
        let base = number * MASK;
        let mut edges = 0u64;
        while let Some(at) = rows.next_if(|&at| at < base + MASK) {
            edges |= 1 << (at - base);
        }
        let inside = inside(part);
        let behind = inside << 1 | open as u64; // the byte before belongs to a word
        let begun = places(inside & (!behind | edges), base, &mut starts, open);
        let ended = places(behind & (!inside | edges), base, &mut ends, 0);
        for ((hash, &start), &end) in hashes.iter_mut().zip(&starts).zip(&ends).take(ended) {
            *hash = hash_word(data, start, end);
        }
        found.add_all(&hashes[..ended]);
        open = begun - ended;
        starts[0] = starts[ended];
    }
}

/// Which of 64 bytes are not 0; each is below 128.
#[inline]
fn inside(part: &[u8]) -> u64 {
    let mut mask = 0;
    for place in (0..MASK).step_by(8) {
        let high = eight_at(part, place).wrapping_add(!HIGHS) & HIGHS;
        mask |= ((high >> 7).wrapping_mul(GATHER) >> 56) << place;
    }
    mask
}

/// Writes where the bits of `mask` are, from `found[count]` on; how many there are then.
#[inline(always)]
fn places(mut mask: u64, base: usize, found: &mut [usize; 2 * MASK], mut count: usize) -> usize {
    while mask != 0 {
        found[count & (2 * MASK - 1)] = base + mask.trailing_zeros() as usize;
        mask &= mask - 1;
        count += 1;
    }
    count
}

/// `hash_key` of a word, of which most are short.
#[inline]
fn hash_word(data: &[u8], start: usize, end: usize) -> u64 {
    let size = end - start;
    if size > 8 {
        return hash_key(data, start, end);
    }
    finish(step((size as u64).wrapping_mul(M1), eight_at(data, start) & (u64::MAX >> (64 - 8 * size))))
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
/// `data` holds `length` bytes and is `padded`; `offsets` has one more element than there are rows, and cell i
/// is `data[offsets[i]..offsets[i + 1]]`.
fn build(
    mut data: Vec<u8>,
    length: usize,
    offsets: &[i32],
    words: bool,
    bits: usize,
) -> Result<Vec<u8>, String> {
    let fits = |pair: &[i32]| 0 <= pair[0] && pair[0] <= pair[1] && pair[1] as usize <= length;
    if offsets.is_empty() || !offsets.windows(2).all(fits) {
        return Err("offsets do not ascend within the data".into());
    }
    if !(1..=64).contains(&bits) {
        return Err("bits a key must be in 1..=64".into());
    }
    // Words come again and again; values, in a column that has a filter, hardly do.
    let mut found = HashSet::with_room(if words { 0 } else { offsets.len() });
    if words {
        for byte in &mut data {
            *byte = lower(*byte);
        }
        data[..offsets[0] as usize].fill(0); // no cell's
        data[offsets[offsets.len() - 1] as usize..].fill(0);
        add_words(&data, offsets, &mut found);
    } else {
        let mut hashes = [0; MASK];
        for (ends, starts) in offsets[1..].chunks(MASK).zip(offsets.chunks(MASK)) {
            for ((hash, &end), &start) in hashes.iter_mut().zip(ends).zip(starts) {
                *hash = hash_key(&data, start as usize, end as usize);
            }
            found.add_all(&hashes[..ends.len()]);
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
    let length = data.item_count();
    let mut copy = vec![0; padded(length)];
    data.copy_to_slice(py, &mut copy[..length])?;
    let offsets = offsets.to_vec(py)?;
    let built = py.detach(|| build(copy, length, &offsets, words, bits));
    Ok(PyBytes::new(py, &built.map_err(PyValueError::new_err)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(text: &[u8], offsets: &[i32], words: bool) -> Result<Vec<u8>, String> {
        let mut data = text.to_vec();
        data.resize(padded(text.len()), 0);
        build(data, text.len(), offsets, words, 16)
    }

    /// The hashes of the words, byte by byte.
    fn slowly(text: &[u8], offsets: &[i32]) -> Vec<u64> {
        let mut hashes = Vec::new();
        for pair in offsets.windows(2) {
            let row: Vec<u8> =
                text[pair[0] as usize..pair[1] as usize].iter().map(|&byte| lower(byte)).collect();
            for word in row.split(|&byte| byte == 0).filter(|word| !word.is_empty()) {
                let mut data = word.to_vec();
                data.resize(padded(word.len()), 0);
                hashes.push(hash_key(&data, 0, word.len()));
            }
        }
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    #[test]
    fn words_are_found_wherever_they_lie() {
        let mut seed = 7u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        for round in 0..400 {
            let letters = 1 + next(12); // few: long words, over the masks' edges; many: short ones
            let mut offsets = vec![0i32];
            let mut text = Vec::new();
            for _ in 0..next(12) {
                for _ in 0..next(90) {
                    let byte = next(letters + 2);
                    text.push(if byte == 0 { 0xc3 } else { b"_aB3z9Q k_0-xY"[byte as usize % 14] });
                }
                offsets.push(text.len() as i32);
            }
            let mut data = text.clone();
            data.resize(padded(text.len()), 0);
            data.iter_mut().for_each(|byte| *byte = lower(*byte));
            let mut found = HashSet::with_room(0);
            add_words(&data, &offsets, &mut found);
            let mut hashes: Vec<u64> = found.iter().collect();
            hashes.sort_unstable();
            assert_eq!(hashes, slowly(&text, &offsets), "round {round}");
        }
    }

    #[test]
    fn one_word_sets_one_bit_a_lane() {
        let filter = built(b"Card!", &[0, 5], true).unwrap();
        assert_eq!(filter.len(), 64);
        assert_eq!(filter.iter().map(|byte| byte.count_ones()).sum::<u32>(), 8);
        assert_eq!(filter, built(b"card", &[0, 4], false).unwrap());
    }

    #[test]
    fn rows_do_not_run_into_each_other() {
        let apart = built(b"ab", &[0, 1, 2], true).unwrap();
        assert_eq!(apart, built(b"a b", &[0, 3], true).unwrap());
        assert_ne!(apart, built(b"ab", &[0, 2], true).unwrap());
        assert_eq!(built(b"b", &[0, 1], true), built(b"x.b.y", &[2, 3], true));
    }

    #[test]
    fn bad_offsets_are_refused() {
        for offsets in [&[][..], &[0, 6], &[3, 1], &[-1, 2]] {
            assert!(built(b"hello", offsets, true).is_err());
        }
    }

    #[test]
    fn each_value_counts_once_whatever_their_number() {
        for count in [1usize, 63, 64, 65, 1000, 40_000] {
            let (mut text, mut offsets) = (Vec::new(), vec![0i32]);
            for n in (0..count).chain(0..count) {
                text.extend_from_slice(format!("id-{n}").as_bytes());
                offsets.push(text.len() as i32);
            }
            let filter = built(&text, &offsets, false).unwrap();
            assert_eq!(filter.len(), (count * 16).div_ceil(512) * 64, "{count}");
        }
    }

    #[test]
    fn many_words_grow_the_set() {
        let text: Vec<String> = (0..20_000).map(|n| format!("w{n}")).collect();
        let text = text.join(" ").into_bytes();
        let filter = built(&text, &[0, text.len() as i32], true).unwrap();
        assert_eq!(filter.len(), 20_000 * 16 / 512 * 64);
    }
}
