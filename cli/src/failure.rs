//! Why a command did not do what it was asked: the thing, the cause, the remedy.

use std::{io, path::PathBuf};

use segvm::{inspect::Flaw, schema::SchemaError};
use segvm_blockcache::{
    BlockSize, NodeReadError, NodeWriteError, PackError, PackId, ReadError, StoreError, TreeError,
    gc::GcError,
};
use segvm_home::{
    AcquireError, HomeError, ImageName, ImageRef, LogError, PublishError, RemoveError,
    ResolveError, RootsError, TagError,
};

use crate::exit::Code;

/// Why not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("no directory for the store: none of SEGVM_HOME, XDG_DATA_HOME and HOME is set")]
    NoDirectory,
    #[error("there is no store at {}", .0.display())]
    NoStore(PathBuf),
    #[error("there is no image {image} in the store {}", store.display())]
    NoImage { image: ImageName, store: PathBuf },
    #[error("image {0} has no commit yet")]
    NoCommit(ImageName),
    #[error("there is an image {0} already")]
    Exists(ImageName),
    #[error("{0} names a home that this command does not know")]
    OtherHome(Box<ImageRef>),
    #[error("{image} has no segment {segment:?}; it has {}", list(has))]
    NoSegment {
        image: ImageName,
        segment: String,
        has: Vec<String>,
    },
    #[error("image {image} has no root {root:?}; it has {}", list(has))]
    NoRoot {
        image: ImageName,
        root: String,
        has: Vec<String>,
    },
    #[error("there is a root {root:?} in each of {}", list(segments))]
    RootTwice { root: String, segments: Vec<String> },
    #[error("what root {root:?} looks like is not stored with it")]
    NoSchema { root: String },
    #[error("root {root:?}: {source}")]
    Schema { root: String, source: SchemaError },
    #[error("segment {segment}: {flaw}")]
    Heap { segment: String, flaw: Flaw },
    #[error(
        "segment {segment}: its heap has format {found}, and this command reads format {wanted}"
    )]
    HeapVersion {
        segment: String,
        found: u32,
        wanted: u32,
    },
    #[error("root {root:?}: {flaws} of its values make no sense, the first at {first}")]
    RootFlaws {
        root: String,
        flaws: u64,
        first: Flaw,
    },
    #[error("segment {segment}: blocks of {a:?} against {b:?} cannot be compared")]
    BlockSizes {
        segment: String,
        a: BlockSize,
        b: BlockSize,
    },
    #[error("{0} equals the newest commit already")]
    IsHead(Box<ImageRef>),
    #[error("image {image}: its commit needs pack {pack}, which {} still writes", writer(*pid))]
    Unsealed {
        image: ImageName,
        pack: PackId,
        pid: u32,
    },
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Tag(#[from] TagError),
    #[error(transparent)]
    Remove(#[from] RemoveError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("image {image}: the marks beside its commit are not readable: {source}")]
    Marks {
        image: ImageName,
        source: segvm_blockcache::MarksError,
    },
    #[error(transparent)]
    Roots(#[from] RootsError),
    #[error("segment {segment} cannot be read")]
    Tree { segment: String, source: TreeError },
    #[error("segment {segment}, block {index}: {source}")]
    Block {
        segment: String,
        index: u64,
        source: ReadError,
    },
    #[error("segment {segment}: {len} bytes are more than the {reserved} reserved for it")]
    TooLong {
        segment: String,
        len: u64,
        reserved: u64,
    },
    #[error("image {0} is not made yet, and whose it would be is not said")]
    NoProgram(ImageName),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error("segment {segment} cannot be written")]
    Nodes {
        segment: String,
        source: NodeWriteError,
    },
    #[error(transparent)]
    Gc(#[from] GcError),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

/// A process, as far as it can be seen from here.
fn writer(pid: u32) -> String {
    match pid {
        0 => "a process out of sight".to_owned(),
        pid => format!("process {pid}"),
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

impl Failure {
    /// Which class it is of.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::NoDirectory
            | Self::Exists(_)
            | Self::OtherHome(_)
            | Self::IsHead(_)
            | Self::NoProgram(_)
            | Self::RootTwice { .. }
            | Self::HeapVersion { .. }
            | Self::BlockSizes { .. } => Code::Usage,
            Self::NoStore(_)
            | Self::NoImage { .. }
            | Self::NoCommit(_)
            | Self::NoRoot { .. }
            | Self::NoSchema { .. }
            | Self::NoSegment { .. } => Code::Absent,
            Self::Unsealed { .. } => Code::Fenced,
            Self::TooLong { .. } | Self::Pack(PackError::Full { .. }) => Code::Limit,
            Self::Pack(PackError::Io { source, .. }) => of_io(source),
            Self::Pack(PackError::Settle(error)) => of_store(error),
            Self::Pack(_) | Self::Nodes { .. } => Code::Io,
            Self::Marks { .. }
            | Self::Schema { .. }
            | Self::Heap { .. }
            | Self::RootFlaws { .. } => Code::Corrupt,
            Self::Roots(RootsError::Home(error)) => of_home(error),
            Self::Roots(_) => Code::Corrupt,
            Self::Output(source) | Self::Write { source, .. } | Self::Read { source, .. } => {
                of_io(source)
            }
            Self::Home(error) => of_home(error),
            Self::Resolve(error) => of_resolve(error),
            Self::Acquire(error) => match error {
                AcquireError::Held { .. } | AcquireError::Busy { .. } => Code::Fenced,
                AcquireError::Io { source, .. } => of_io(source),
                AcquireError::Log(error) => of_log(error),
                _ => Code::Corrupt,
            },
            Self::Publish(error) => of_publish(error),
            Self::Tag(error) => match error {
                TagError::NoImage { .. } | TagError::NotFound { .. } => Code::Absent,
                TagError::Exists { .. } | TagError::Shadowed { .. } => Code::Usage,
                TagError::Busy { .. } => Code::Fenced,
                TagError::Resolve(error) => of_resolve(error),
                TagError::Home(error) => of_home(error),
                _ => Code::Io,
            },
            Self::Remove(error) => match error {
                RemoveError::NoImage { .. } => Code::Absent,
                RemoveError::Held { .. } | RemoveError::Busy { .. } => Code::Fenced,
                RemoveError::Home(error) => of_home(error),
                _ => Code::Io,
            },
            Self::Store(error) | Self::Gc(GcError::Store(error)) => of_store(error),
            Self::Gc(GcError::Rewrite(_)) => Code::Io,
            Self::Gc(_) => Code::Corrupt,
            Self::Tree { source, .. } => match source {
                TreeError::Read(NodeReadError::Io { .. }) => Code::Io,
                TreeError::TooLong { .. } => Code::Limit,
                _ => Code::Corrupt,
            },
            Self::Block { source, .. } => match source {
                ReadError::Io { source, .. } => of_io(source),
                ReadError::Store { source, .. } => of_store(source),
                _ => Code::Corrupt,
            },
        }
    }

    /// What to do about it, where the message does not say so already.
    pub(crate) fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::NoDirectory => "say `--store DIR`",
            Self::NoStore(_) => {
                "a program makes it when it first opens an image; say `--store DIR` or set SEGVM_HOME for another one"
            }
            Self::NoImage { .. } => "`segvm images` lists those that there are",
            Self::NoCommit(_) => "its program has not come to its first checkpoint: wait for it",
            Self::Exists(_) => "choose another name, or remove it with `segvm rm`",
            Self::OtherHome(_) => "leave out what stands before the last `:`",
            Self::NoSegment { .. } => "`segvm show IMAGE` lists them",
            Self::NoProgram(_) => "say `--program NAME`, the name of its executable",
            Self::TooLong { .. } => {
                "a program reserves more when it first makes the segment: import into another one"
            }
            Self::IsHead(_) => "`segvm log IMAGE` lists the older ones",
            Self::Unsealed { .. } => {
                "suspend or end that program, or name an older commit of an earlier run"
            }
            Self::Resolve(ResolveError::NotFound { .. })
            | Self::Tag(TagError::Resolve(ResolveError::NotFound { .. })) => {
                "`segvm log IMAGE` lists the commits and tags that there are"
            }
            Self::Acquire(AcquireError::Held { .. }) => {
                "end that program, or take the image from it with `segvm steal`"
            }
            Self::Marks { .. }
            | Self::Roots(RootsError::Marks { .. })
            | Self::Tree { .. }
            | Self::Block { .. } => "`segvm fsck --deep` says what is damaged and whom it touches",
            Self::RootTwice { .. } => "say which with `--segment NAME`",
            Self::HeapVersion { .. } => "use the segvm that the program was built with",
            Self::Schema { .. } | Self::Heap { .. } | Self::RootFlaws { .. } => {
                "the program wrote it so, if `segvm fsck --deep` finds nothing: `segvm show IMAGE@-1 --root NAME` shows it as it was before"
            }
            Self::Gc(GcError::Store(_)) => return None,
            Self::Gc(_) => "`segvm fsck` says what is damaged and whom it touches",
            Self::Store(StoreError::Damaged { .. } | StoreError::Missing { .. }) => {
                "`segvm fsck --deep` says whom it touches"
            }
            _ if self.code() == Code::Limit => "make room and try again",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

fn of_io(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::NotFound => Code::Absent,
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::FileTooLarge
        | io::ErrorKind::OutOfMemory => Code::Limit,
        _ => Code::Io,
    }
}

fn of_log(error: &LogError) -> Code {
    match error {
        LogError::Io { source, .. } => of_io(source),
        _ => Code::Corrupt,
    }
}

fn of_home(error: &HomeError) -> Code {
    match error {
        HomeError::Io { source, .. } => of_io(source),
        HomeError::Log(error) => of_log(error),
        _ => Code::Corrupt,
    }
}

fn of_resolve(error: &ResolveError) -> Code {
    match error {
        ResolveError::NotFound { .. } => Code::Absent,
        ResolveError::Ambiguous { .. } => Code::Usage,
        ResolveError::Home(error) => of_home(error),
        _ => Code::Io,
    }
}

fn of_publish(error: &PublishError) -> Code {
    match error {
        PublishError::Orphaned { .. }
        | PublishError::Held { .. }
        | PublishError::Moved { .. }
        | PublishError::Forked { .. }
        | PublishError::Busy { .. } => Code::Fenced,
        PublishError::Invalid { .. } | PublishError::Mark { .. } => Code::Limit,
        PublishError::Write { source, .. }
        | PublishError::Sync { source, .. }
        | PublishError::Io { source, .. } => of_io(source),
        PublishError::Log(error) => of_log(error),
        PublishError::LeaseFile(_) => Code::Corrupt,
        _ => Code::Io,
    }
}

fn of_store(error: &StoreError) -> Code {
    match error {
        StoreError::Future { .. } | StoreError::UnknownFeature { .. } => Code::Usage,
        StoreError::Closed { .. } | StoreError::InUse { .. } => Code::Fenced,
        StoreError::Io { source, .. } => of_io(source),
        _ => Code::Corrupt,
    }
}
