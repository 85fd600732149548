//! segvm's side: an image with one raw segment, used as a program uses it.

use std::{
    error::Error,
    path::Path,
    ptr::NonNull,
    time::{Duration, Instant},
};

use segvm::{Rounds, Saved, Segment, SegmentOptions, Session, SessionOptions, gate::Pass};

use crate::{error::BenchError, memory::View};

/// The image's and the segment's name.
pub const NAME: &str = "bench";

/// An open session with its segment.
#[derive(Debug)]
pub struct Image {
    session: Session,
    segment: Segment,
}

impl Image {
    /// Opens the image in a store of its own, or makes it, with a segment of `len` bytes.
    ///
    /// - **Errors**: [`BenchError::Ours`].
    pub fn open(store: &Path, len: usize) -> Result<Self, BenchError> {
        Self::open_with(SessionOptions::new(), store, len)
    }

    /// The same, with options; the store is not theirs to say.
    ///
    /// - **Errors**: [`BenchError::Ours`].
    pub fn open_with(
        options: SessionOptions,
        store: &Path,
        len: usize,
    ) -> Result<Self, BenchError> {
        let session = options.store(store).open(NAME).map_err(ours)?;
        let options = SegmentOptions::default().reserve(len);
        let segment = session.segment_with(NAME, len, &options).map_err(ours)?;
        Ok(Self { session, segment })
    }

    /// The segment's memory. Who writes there holds a pass meanwhile.
    ///
    /// - **Panics**: never: a segment does not lie at address 0.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        let base = NonNull::new(self.segment.as_ptr()).unwrap_or(NonNull::dangling());
        // SAFETY: the segment is mapped, readable and writable for its length as long as the session lives, which
        // this borrow ensures; nobody forms references into it.
        unsafe { View::new(base, self.segment.len()) }
    }

    /// Enters the gate as a writer.
    ///
    /// - **Errors**: [`BenchError::Ours`].
    pub fn enter(&self) -> Result<Pass<'_>, BenchError> {
        self.session.enter().map_err(ours)
    }

    /// Writes inside the gate.
    ///
    /// - **Errors**: [`BenchError::Ours`].
    pub fn change<T>(&self, write: impl FnOnce(View<'_>) -> T) -> Result<T, BenchError> {
        let pass = self.enter()?;
        let result = write(self.view());
        drop(pass);
        Ok(result)
    }

    /// Checkpoints.
    ///
    /// - **Errors**: [`BenchError::Ours`].
    pub fn checkpoint(&self, rounds: Rounds) -> Result<Saved, BenchError> {
        self.session.checkpoint_with(rounds).map_err(ours)
    }

    /// Makes a new image that starts at the newest checkpoint, and says how long that took.
    ///
    /// - **Errors**: [`BenchError::Ours`].
    pub fn branch(&self, name: &str) -> Result<Duration, BenchError> {
        let begun = Instant::now();
        self.session.branch(name).map_err(ours)?;
        Ok(begun.elapsed())
    }

    /// Suspends, and says how long that took.
    ///
    /// - **Errors**: [`BenchError::Ours`].
    pub fn suspend(self) -> Result<Duration, BenchError> {
        let Self { session, segment } = self;
        let begun = Instant::now();
        session.suspend().map_err(ours)?;
        drop(segment);
        Ok(begun.elapsed())
    }
}

/// For `map_err` on segvm's own errors.
pub fn ours(error: impl Error + Send + Sync + 'static) -> BenchError {
    BenchError::Ours(Box::new(error))
}
