//! Section 9: from an image's name to the bytes of a segment.

use std::path::{Path, PathBuf};

use super::{
    bytes::{Id, Read, commit_id},
    commit::{self, Commit, Segment},
    log,
    pack::{self, Packs},
    tree::{self, Content},
};

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: Id,
    pub(crate) sequence: u64,
    pub(crate) token: u64,
    pub(crate) commit: Commit,
}

#[derive(Debug)]
pub(crate) struct Image {
    store: PathBuf,
    pub(crate) packs: Packs,
    /// Newest first.
    pub(crate) records: Vec<Record>,
}

impl Image {
    /// Steps 1 to 5.
    pub(crate) fn open(store: &Path, name: &str) -> Read<Self> {
        log::check_format(store)?;
        let frames = log::frames(store, name)?;
        let marks = match frames.first() {
            Some(newest) => pack::marks(&newest.marks)?,
            None => Vec::new(),
        };
        for older in &frames {
            pack::marks(&older.marks)?;
        }
        let records = frames
            .iter()
            .map(|frame| {
                Ok(Record {
                    id: commit_id(&frame.commit),
                    sequence: frame.sequence,
                    token: frame.token,
                    commit: commit::decode(&frame.commit)?,
                })
            })
            .collect::<Read<_>>()?;
        Ok(Self {
            store: store.to_owned(),
            packs: Packs::open(store, &marks)?,
            records,
        })
    }

    /// Steps 6 to 8.
    pub(crate) fn content(&self, segment: &Segment) -> Read<Content> {
        tree::content(&self.packs, &segment.tree, segment.shape)
    }

    /// By the extent map, if there is one.
    pub(crate) fn mapped(&self, segment: &Segment) -> Read<Option<Vec<u8>>> {
        tree::mapped(&self.store, &self.packs, &segment.tree, segment.shape)
    }
}
