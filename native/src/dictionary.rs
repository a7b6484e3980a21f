//! Distinct values of a column with few of them, numbered in the order in which they came.

use std::collections::HashMap;

/// Beyond so many values a column is no dictionary any more.
const VALUES_MAX: usize = 4096;
const CACHE: usize = 256;

/// `cache` finds the usual value without hashing it all; `known` (SipHash) is what hostile values meet.
pub struct Dictionary {
    pub offsets: Vec<i32>,
    pub data: Vec<u8>,
    known: HashMap<Box<[u8]>, i32>,
    cache: Box<[i32; CACHE]>,
}

impl Default for Dictionary {
    fn default() -> Self {
        let cache = Box::new([-1; CACHE]);
        Dictionary { offsets: vec![0], data: Vec::new(), known: HashMap::new(), cache }
    }
}

impl Dictionary {
    pub fn value(&self, index: i32) -> &[u8] {
        let at = index as usize;
        &self.data[self.offsets[at] as usize..self.offsets[at + 1] as usize]
    }

    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The number of `value`; `None`: it is one too many.
    #[inline]
    pub fn index(&mut self, value: &[u8]) -> Option<i32> {
        let slot = slot(value);
        let likely = self.cache[slot];
        if likely >= 0 && self.value(likely) == value {
            return Some(likely);
        }
        let found = match self.known.get(value) {
            Some(&index) => index,
            None => self.add(value)?,
        };
        self.cache[slot] = found;
        Some(found)
    }

    fn add(&mut self, value: &[u8]) -> Option<i32> {
        let end = i32::try_from(self.data.len() + value.len()).ok()?;
        if self.len() == VALUES_MAX {
            return None;
        }
        let index = self.len() as i32;
        self.data.extend_from_slice(value);
        self.offsets.push(end);
        self.known.insert(value.into(), index);
        Some(index)
    }
}

/// Where the cache keeps `value`: by its length, its middle and its end.
#[inline]
fn slot(value: &[u8]) -> usize {
    let size = value.len();
    let (Some(&first), Some(&last)) = (value.first(), value.last()) else { return 0 };
    let middle = value[size / 2];
    let mixed = u32::from(first) | u32::from(middle) << 8 | u32::from(last) << 16 | (size as u32) << 24;
    (mixed.wrapping_mul(0x9e37_79b1) >> 24) as usize
}
