//! What a store is needed for, as those say who know images: the argument of checks and collections.

use std::{fmt, sync::Arc};

use crate::{
    id::{CommitId, TreeId},
    pack::PackMark,
    unit::BlockSize,
};

/// A tree that must be whole, and what people call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeRoot {
    /// The image it belongs to.
    pub image: Arc<str>,
    /// The commit of that image.
    pub commit: CommitId,
    /// The segment in that commit.
    pub segment: Arc<str>,
    /// Its tree.
    pub tree: TreeId,
    /// The length that the commit says it has, in bytes.
    pub len: u64,
    /// The size of its blocks, as the commit says.
    pub block_size: BlockSize,
}

impl fmt::Display for TreeRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:.12}/{}", self.image, self.commit, self.segment)
    }
}

/// A mark of an image's newest record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageMark {
    /// The image.
    pub image: Arc<str>,
    /// What its record says of a pack.
    pub mark: PackMark,
}
