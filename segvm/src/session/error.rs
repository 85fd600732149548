//! Why an image could not be opened, and the one error that an application's `main` returns.

use std::{fmt, io, path::PathBuf};

use segvm_blockcache::{
    BlockSize, MarksError, PackId, ReadError, RebuildError, StoreError, TreeError,
};
use segvm_home::{
    AcquireError, HomeError, LogError, ParseNameError, ParseRefError, Ref, ResolveError, TagError,
};
use segvm_os::KernelError;

use super::Session;
use crate::{
    checkpoint::CheckpointError,
    gate::GateError,
    heap::HeapError,
    hooks::HookError,
    migrate::MigrationError,
    region::RegionError,
    root::{GuardError, RootError},
    segment::{Fingerprint, ranges::ClaimError},
    world::WorldError,
};

/// Why an image could not be opened or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Where to keep the store could not be told.
    #[error("no place for the store: set SEGVM_HOME, XDG_DATA_HOME or HOME")]
    NoStore,
    /// The name is not one.
    #[error(transparent)]
    Name(#[from] ParseNameError),
    /// The reference to a commit is not one.
    #[error(transparent)]
    Reference(#[from] ParseRefError),
    /// The image's log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another writer has the image, or its log cannot be used.
    #[error(transparent)]
    Lease(#[from] AcquireError),
    /// The image was stolen again and again from processes that still run, and no more of their packs can be kept.
    #[error(
        "image `{image}` was stolen from process {pid} and others, which still run and have not completed their packs: end \
         that process first"
    )]
    StolenFrom {
        /// The image.
        image: String,
        /// The process; 0 where it cannot be seen from here.
        pid: u32,
    },
    /// There is no such image to read.
    #[error("there is no image `{image}` to read, or it has no checkpoint yet")]
    NoImage {
        /// The image.
        image: String,
    },
    /// An older commit was to be opened for writing.
    #[error(
        "`{image}@{at}` is a commit, which is opened for reading (SessionOptions::reader); to write, open `{image}` and \
         restore it, or branch from it"
    )]
    NeedsReader {
        /// The image.
        image: String,
        /// The commit that was asked for.
        at: Ref,
    },
    /// The session is the image's writer: what it follows is itself.
    #[error("image `{image}` is open for writing here: only a reader follows it")]
    NotReader {
        /// The image.
        image: String,
    },
    /// Another home was named.
    #[error("home `{home}` is not known here: leave it out for the images of this store")]
    OtherHome {
        /// The home.
        home: String,
    },
    /// A new image would need a pack that a writer still appends to.
    #[error(
        "commit {commit:.12} of image `{image}` lies in pack {pack}, which its writer has not completed yet: \
         Session::branch_here makes an image of what is in memory"
    )]
    Unsealed {
        /// The image.
        image: String,
        /// The commit.
        commit: segvm_blockcache::CommitId,
        /// The pack.
        pack: PackId,
    },
    /// A stored block is not what it should be.
    #[error(
        "offset {offset} of segment `{segment}`: {source}; open an older commit (`image@-1`), or the store from a copy"
    )]
    Damaged {
        /// The segment.
        segment: String,
        /// Where in it, in bytes.
        offset: u64,
        /// The block, and where it lies.
        source: ReadError,
    },
    /// A tag could not be given or taken away.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// The image could not be read.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The commit that was asked for cannot be found.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The segment's addresses are not to be had in this process.
    #[error(transparent)]
    Range(#[from] ClaimError),
    /// Memory could not be mapped, or the machine lacks what tracking needs.
    #[error(transparent)]
    Memory(#[from] KernelError),
    /// The engine that was asked for is not one, or does not work here.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The record's marks make no sense.
    #[error("the newest record: {0}")]
    Marks(#[from] MarksError),
    /// Where the segment's blocks lie could not be told, or some are nowhere.
    #[error("segment `{segment}`: {source}")]
    Layout {
        /// The segment.
        segment: String,
        /// Which blocks, or which pack.
        source: RebuildError,
    },
    /// A pack is not there any more, and nobody else has all that was in it.
    #[error(
        "{source}; the pack {} is missing: put it back from a copy of the store, or open an older commit (`image@-1`)",
        pack.display()
    )]
    Lost {
        /// The pack.
        pack: PathBuf,
        /// What is lost with it.
        source: Box<OpenError>,
    },
    /// A stored block could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The segment's tree could not be read.
    #[error("the tree of segment `{segment}`: {source}")]
    Tree {
        /// The segment.
        segment: String,
        /// What went wrong.
        source: TreeError,
    },
    /// The image was made on a machine with other pages or pointers.
    #[error(
        "image `{image}` was made with {made}, this machine has {here}: open it on a machine like the first one"
    )]
    OtherMachine {
        /// The image.
        image: String,
        /// What the image has.
        made: String,
        /// What is here.
        here: String,
    },
    /// Another program made the image.
    #[error(
        "image `{image}` was last written by program `{made}`, this is `{here}`: if they agree about its content, open it \
         with SessionOptions::any_program"
    )]
    OtherProgram {
        /// The image.
        image: String,
        /// The program that made its newest checkpoint.
        made: String,
        /// This program.
        here: String,
    },
    /// The commit's record of a segment contradicts itself.
    #[error(
        "the record of segment `{segment}` contradicts itself: restore an older commit (`image@-1`)"
    )]
    BadRecord {
        /// The segment.
        segment: String,
    },
    /// The segment is not what it was.
    #[error("segment `{segment}` of image `{image}` has {has}, and {wanted} was asked for")]
    OtherSegment {
        /// The image.
        image: String,
        /// The segment.
        segment: String,
        /// What it is.
        has: String,
        /// What was asked for.
        wanted: String,
    },
    /// Blocks were asked for that are smaller than this machine's pages.
    #[error("segment `{segment}`: {block_size:?} were asked for, and a page of this machine has {} KiB: ask for {least:?}", .least.bytes() >> 10)]
    BlockBelowPage {
        /// The segment.
        segment: String,
        /// What was asked for.
        block_size: BlockSize,
        /// Blocks of one page.
        least: BlockSize,
    },
    /// The bytes of the segment mean something else than what this program takes them for.
    #[error(
        "the bytes of segment `{segment}` of image `{image}` are recorded to be {recorded}, and this program takes them for \
         {wanted}: open it with a program that agrees, or make a segment of another name"
    )]
    OtherFingerprint {
        /// The image.
        image: String,
        /// The segment.
        segment: String,
        /// What was said when it was made.
        recorded: Fingerprint,
        /// What was asked for.
        wanted: Fingerprint,
    },
    /// A segment of the session did not exist at the commit that is to be restored.
    #[error("segment `{segment}` did not exist at commit {commit}")]
    NoSegmentThen {
        /// The segment.
        segment: String,
        /// The commit.
        commit: segvm_blockcache::CommitId,
    },
    /// There is an image of that name.
    #[error("there is an image `{image}` already: choose another name")]
    Exists {
        /// The image.
        image: String,
    },
    /// There is no checkpoint to start from.
    #[error("image `{image}` has no checkpoint yet: make one first")]
    NothingSaved {
        /// The image.
        image: String,
    },
    /// The heap in the segment cannot be used.
    #[error("the heap in segment `{segment}`: {source}")]
    Heap {
        /// The segment.
        segment: String,
        /// What is wrong.
        source: HeapError,
    },
    /// The store's directory could not be read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A resume hook failed. At open the session is given up; after a restore, memory is the older commit's.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// A root could not be brought to the type that the program has now.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// A region could not be made or filled.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The checkpoint before a restore failed, or the session is closed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The gate could not be closed.
    #[error(transparent)]
    Gate(#[from] GateError),
}

impl OpenError {
    /// The same, and which pack it is that is lost, if that is known by now.
    pub(super) fn with_lost(self, pack: Option<PathBuf>) -> Self {
        match (self, pack) {
            (source @ (Self::Layout { .. } | Self::Tree { .. }), Some(pack)) => Self::Lost {
                pack,
                source: Box::new(source),
            },
            (other, _) => other,
        }
    }
}

/// Why a session could not be suspended, and the session, which goes on.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct SuspendError {
    pub(super) session: Box<Session>,
    /// Why.
    pub reason: CheckpointError,
}

impl SuspendError {
    /// Takes the session back, to mend what was wrong and try again.
    #[must_use]
    pub fn into_session(self) -> Session {
        *self.session
    }
}

impl From<SuspendError> for Error {
    fn from(error: SuspendError) -> Self {
        Self::Checkpoint(error.reason)
    }
}

/// Anything that can go wrong with a session, for an application that passes errors on.
///
/// Its `Debug` is its `Display` and what it was caused by, so that `fn main() -> Result<(), segvm::Error>` prints a sentence that says
/// why.
#[non_exhaustive]
#[derive(thiserror::Error)]
pub enum Error {
    /// From opening, restoring, or making a segment.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// From a checkpoint or suspend.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// From looking up a root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// From taking a guard.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// From a region.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// From the heap.
    #[error(transparent)]
    Heap(#[from] HeapError),
    /// From anything else an application does; kept so that `?` works on it.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.to_string();
        let mut at = std::error::Error::source(self);
        while let Some(cause) = at {
            let text = cause.to_string();
            // Many sentences end with their cause's already.
            if !said.contains(&text) {
                said += ": ";
                said += &text;
            }
            at = cause.source();
        }
        f.write_str(&said)
    }
}
