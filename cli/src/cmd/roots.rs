//! What a store is needed for: the trees of every commit of every image and of every tag, and the marks of the newest.

use std::{collections::HashSet, sync::Arc};

use segvm_blockcache::{CommitId, ImageMark, TreeRoot};
use segvm_home::{ImageName, Record};

use crate::{
    failure::Failure,
    local::{Local, marks_of},
};

/// Roots and marks.
#[derive(Debug, Default)]
pub(super) struct Roots {
    pub(super) trees: Vec<TreeRoot>,
    pub(super) marks: Vec<ImageMark>,
    pub(super) images: u64,
    pub(super) commits: u64,
}

impl Roots {
    /// Adds all that an image needs.
    ///
    /// - **Errors**: at the first record or tag that cannot be read. What came before it was added.
    pub(super) fn add(&mut self, local: &Local, image: &ImageName) -> Result<(), Failure> {
        let name: Arc<str> = image.as_str().into();
        self.images += 1;
        let mut seen = HashSet::new();
        for (at, record) in local.home.log(image)?.enumerate() {
            let record = record.map_err(segvm_home::HomeError::from)?;
            if at == 0 {
                let marks = marks_of(image, &record)?.into_iter();
                self.marks.extend(marks.map(|mark| ImageMark {
                    image: Arc::clone(&name),
                    mark,
                }));
            }
            self.record(&name, &record, &mut seen);
        }
        // A tag keeps its commit also when the log that it was found in is gone.
        for tag in local.home.tags(image)? {
            self.record(&name, &tag.record, &mut seen);
        }
        Ok(())
    }

    fn record(&mut self, image: &Arc<str>, record: &Record, seen: &mut HashSet<CommitId>) {
        if !seen.insert(record.commit_id) {
            return;
        }
        self.commits += 1;
        let segments = record.commit.segments.iter();
        self.trees.extend(segments.map(|segment| TreeRoot {
            image: Arc::clone(image),
            commit: record.commit_id,
            segment: segment.name.as_str().into(),
            tree: segment.tree,
            len: segment.len,
            block_size: segment.block_size,
        }));
    }
}
