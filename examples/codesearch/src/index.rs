//! The state: which words are in which files.

use segvm::{
    Persist,
    collections::{HashMap, Text, Vec},
};

use crate::walk::SourceFile;

/// The root: everything that the program knows.
#[derive(Persist)]
#[repr(C)]
pub(crate) struct Index {
    /// By path, the number of the newest version of a file.
    numbers: HashMap<Text, u32>,
    /// By number. A version that was replaced stays, marked dead.
    pub(crate) files: Vec<File>,
    /// By word, the numbers of the files that have it, ascending.
    pub(crate) postings: HashMap<Text, Vec<u32>>,
    /// How many numbers all postings have together.
    pub(crate) entries: u64,
}

/// One version of a file.
#[derive(Persist)]
#[repr(C)]
pub(crate) struct File {
    /// Where it is.
    pub(crate) path: Text,
    size: u64,
    modified: u64,
    dead: u64,
}

impl Index {
    /// Tells whether this version of the file is indexed.
    pub(crate) fn has(&self, file: &SourceFile) -> bool {
        let known = self
            .numbers
            .get(file.path.as_str())
            .and_then(|&number| self.files.get(number as usize));
        known.is_some_and(|known| known.size == file.size && known.modified == file.modified)
    }

    /// Files that are there now.
    pub(crate) fn live(&self) -> usize {
        self.files.iter().filter(|file| file.dead == 0).count()
    }

    /// The live files that have all the terms, by number.
    pub(crate) fn search(&self, terms: &[&str]) -> std::vec::Vec<u32> {
        let mut lists: std::vec::Vec<&[u32]> = std::vec::Vec::new();
        for term in terms {
            match self.postings.get(term.to_lowercase().as_str()) {
                Some(list) => lists.push(list.as_slice()),
                None => return std::vec::Vec::new(),
            }
        }
        lists.sort_by_key(|list| list.len());
        let Some((shortest, others)) = lists.split_first() else {
            return std::vec::Vec::new();
        };
        shortest
            .iter()
            .copied()
            .filter(|number| others.iter().all(|list| list.binary_search(number).is_ok()))
            .filter(|&number| {
                self.files
                    .get(number as usize)
                    .is_some_and(|file| file.dead == 0)
            })
            .collect()
    }
}

impl IndexMut<'_> {
    /// Puts a file's words in, replacing an older version of it.
    pub(crate) fn add(&mut self, file: &SourceFile, content: &[u8]) {
        let number = u32::try_from(self.files.len()).expect("fewer than 2^32 versions of files");
        if let Some(&old) = self.numbers.get(file.path.as_str())
            && let Some(old) = self.files.get_mut(old as usize)
        {
            *old.dead = 1;
        }
        let mut entry = self.files.push_default();
        entry.path.set(&file.path);
        *entry.size = file.size;
        *entry.modified = file.modified;
        self.numbers.insert(file.path.as_str(), number);
        let words = words(content);
        *self.entries += words.len() as u64;
        for word in words {
            self.postings.entry(word.as_str()).or_default().push(number);
        }
    }
}

/// The different words of a file: identifiers of 2 to 64 characters, in lower case.
pub(crate) fn words(content: &[u8]) -> std::collections::HashSet<String> {
    content
        .split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
        .filter(|word| (2..=64).contains(&word.len()))
        .map(|word| String::from_utf8_lossy(word).to_lowercase())
        .collect()
}
