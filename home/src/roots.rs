//! What a store is needed for: the trees of every commit of every image and of every tag, and the marks of the newest.
//!
//! A collection frees what is not in here, so it has to be all, and stay so while the collection lasts. What may happen meanwhile,
//! where the collector has the store alone and read the roots after that:
//!
//! | what | why it takes nothing away from the roots |
//! |---|---|
//! | a checkpoint, a branch, a restore | who makes a commit has the store open, so it ended before, and is read; or is refused |
//! | a tag | it names a commit that some log has, which is a root already. Only if that log belongs to another image, which is removed between the two reads, nobody would keep it: so who tags has the store open, too |
//! | `rm` | takes roots away: what was read before is kept once more than needed. An image of which the name was listed and the log is gone has nothing |
//! | an `rm` that was killed | it may be seen and not be durable: it is made so first ([`Home::settle`]), or the image would come back after its blocks went |
//! | `steal` | grants a lease, names nothing. The thief's session has the store open |
//! | a writer that was killed | its newest record may be seen and not be durable: then the next power cut makes the one before it the newest. Both are in the log, so both are roots; a pack that only the older one marks may be gone, and whoever opens the image passes over that |
//!
//! A directory home on its own does not hold the store: whoever calls it does.

use std::{collections::HashSet, sync::Arc};

use segvm_blockcache::{CommitId, ImageMark, Marks, MarksError, TreeRoot};

use crate::{
    error::HomeError,
    home::{Home, Record},
    name::ImageName,
};

/// What all images of a home need, as far as they were added.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// The trees of every commit.
    pub trees: Vec<TreeRoot>,
    /// The marks of each image's newest record.
    pub marks: Vec<ImageMark>,
    /// Images that were added.
    pub images: u64,
    /// Their commits, each once an image.
    pub commits: u64,
}

/// Why it is not known what an image needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootsError {
    /// The image, or the list of them, could not be read.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The marks of its newest record make no sense.
    #[error("the newest record of image {image}: {source}")]
    Marks {
        /// The image.
        image: ImageName,
        /// What is wrong with them.
        source: MarksError,
    },
}

impl Roots {
    /// What all images of a home need.
    ///
    /// - **Cost**: reads every log and every tag.
    /// - **Errors**: at the first record or tag that cannot be read: what is needed is not known then, and nothing may be freed.
    pub fn of(home: &(impl Home + ?Sized)) -> Result<Self, RootsError> {
        home.settle()?;
        let mut roots = Self::default();
        for image in home.images()? {
            roots.add(home, &image)?;
        }
        Ok(roots)
    }

    /// Adds all that an image needs.
    ///
    /// - **Errors**: at the first record or tag that cannot be read. What came before it was added.
    pub fn add(
        &mut self,
        home: &(impl Home + ?Sized),
        image: &ImageName,
    ) -> Result<(), RootsError> {
        let name: Arc<str> = image.as_str().into();
        self.images += 1;
        let mut seen = HashSet::new();
        for (at, record) in home.log(image)?.enumerate() {
            let record = record.map_err(HomeError::from)?;
            if at == 0 {
                self.mark(image, &name, &record)?;
            }
            self.record(&name, &record, &mut seen);
        }
        // A tag keeps its commit also when the log that it was found in is gone.
        for tag in home.tags(image)? {
            self.record(&name, &tag.record, &mut seen);
        }
        Ok(())
    }

    fn mark(
        &mut self,
        image: &ImageName,
        name: &Arc<str>,
        newest: &Record,
    ) -> Result<(), RootsError> {
        let marks = match Marks::decode(&newest.mark) {
            Ok(marks) => marks,
            Err(source) => {
                let image = image.clone();
                return Err(RootsError::Marks { image, source });
            }
        };
        self.marks.extend(marks.list().iter().map(|mark| ImageMark {
            image: Arc::clone(name),
            mark: *mark,
        }));
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
