//! Which column a key of a row belongs to: a tree of the keys seen, guessed at by the key before.

use std::collections::HashMap;

/// Distinct keys beyond which a batch is not ours; the Python path folds rare fields.
const PATHS_MAX: usize = 1024;
pub const ROOT: u32 = 0;
pub const NO_COLUMN: u32 = u32::MAX;

/// A key within its parent.
pub struct Path {
    parent: u32,
    /// The key as it mostly stands in the body, with its closing quote.
    quoted: Vec<u8>,
    /// The dotted name of the whole path.
    pub name: String,
    children: HashMap<Box<[u8]>, u32>,
    /// The path that followed last time.
    next: u32,
    /// The line that last had this key.
    pub line: u32,
    pub column: u32,
}

pub struct Names {
    pub paths: Vec<Path>,
    last: u32,
    name_bytes: usize,
}

pub enum Lookup {
    Found(u32),
    /// A name that only Python handles: too long, or with NUL.
    Odd,
    Full,
}

impl Names {
    pub fn new(name_bytes: usize) -> Self {
        let root = Path {
            parent: ROOT,
            quoted: Vec::new(),
            name: String::new(),
            children: HashMap::new(),
            next: ROOT,
            line: 0,
            column: NO_COLUMN,
        };
        Names { paths: vec![root], last: ROOT, name_bytes }
    }

    pub fn begin_row(&mut self) {
        self.last = ROOT;
    }

    /// The key that stands at `at` (behind its quote) if it is the expected one or the one after that,
    /// and the place behind its closing quote.
    #[inline]
    pub fn expected(&mut self, body: &[u8], at: usize, parent: u32) -> Option<(u32, usize)> {
        let mut guess = self.last;
        for _ in 0..2 {
            guess = self.paths[guess as usize].next;
            let path = &self.paths[guess as usize];
            if path.parent == parent && guess != ROOT && body[at..].starts_with(&path.quoted) {
                let end = at + path.quoted.len();
                self.last = guess;
                return Some((guess, end));
            }
        }
        None
    }

    /// The path of `key` (decoded) within `parent`, made if it is new.
    pub fn lookup(&mut self, parent: u32, key: &[u8]) -> Lookup {
        let known = self.paths[parent as usize].children.get(key).copied();
        let found = match known {
            Some(found) => found,
            None => match self.add(parent, key) {
                Lookup::Found(found) => found,
                other => return other,
            },
        };
        self.paths[self.last as usize].next = found;
        self.last = found;
        Lookup::Found(found)
    }

    fn add(&mut self, parent: u32, key: &[u8]) -> Lookup {
        let Ok(local) = std::str::from_utf8(key) else { return Lookup::Odd };
        let above = &self.paths[parent as usize].name;
        let name = if parent == ROOT { local.to_owned() } else { format!("{above}.{local}") };
        if name.len() > self.name_bytes || name.contains('\0') {
            return Lookup::Odd;
        }
        if self.paths.len() == PATHS_MAX {
            return Lookup::Full;
        }
        let index = self.paths.len() as u32;
        // A key with an escape, decoded, would match a body that has the raw character: not JSON's.
        let mut quoted = key.to_vec();
        quoted.push(b'"');
        let plain = crate::scan::string_stop(&quoted, 0) == key.len();
        self.paths.push(Path {
            parent: if plain { parent } else { u32::MAX },
            quoted,
            name,
            children: HashMap::new(),
            next: ROOT,
            line: 0,
            column: NO_COLUMN,
        });
        self.paths[parent as usize].children.insert(key.into(), index);
        Lookup::Found(index)
    }
}
