//! Program state that can be suspended, resumed, moved, branched and trusted.
//!
//! | room | for |
//! |---|---|
//! | `session` | one process's open image: open, checkpoint, suspend, restore |
//! | `segment` | ranges of memory at stable addresses |
//! | `region` | ranges of segments that are not simply kept |
//! | `dirty` | which pages were written |
//! | `checkpoint` | rounds, the pause, storing what they found |
//! | `hooks` | what the application has done before a capture and after a resume |
//! | `gate` | the lock that writers share and a checkpoint takes alone |
//! | `persist` | which types can live in a segment, and how they are reached there |
//! | `schema` | what a type looks like, stored with the image: fingerprints, differences |
//! | `heap` | the allocator that lives in a segment |
//! | `collections` | `Vec`, `Text`, `Box`, `HashMap`, `BTreeMap` in a heap |
//! | `root` | typed values found by name, and their guards |
//! | `migrate` | a root of one type becomes one of another |
//! | `inspect` | a heap's roots and their values, read from blocks by the stored schema |
//! | `testing` | for the tests of programs that use this: temporary sessions, programs that are killed |
//! | `world` | the seams to kernel, files and clock |

mod checkpoint;
pub mod collections;
mod dirty;
pub mod gate;
pub mod heap;
pub mod hooks;
pub mod inspect;
mod migrate;
pub mod persist;
pub mod region;
pub mod root;
pub mod schema;
mod segment;
mod session;
pub mod testing;
mod world;

pub use checkpoint::{CheckpointError, Rounds, Saved, Takeover};
pub use collections::{BTreeMap, Box, HashMap, Text, Vec};
pub use migrate::{Migration, MigrationError};
pub use persist::{Maybe, Persist};
pub use region::{Attribute, Region, Secret};
pub use root::{ReadGuard, Root, WriteGuard};
pub use segment::{ClaimError, Fingerprint, KernelWrite, Owner, Segment, SegmentOptions};
pub use segvm_blockcache::{BlockSize, CommitId};
pub use segvm_os::Engine;
pub use session::{
    Automatic, Cause, Checkpoint, Error, OpenError, Resumed, Session, SessionOptions, SuspendError,
    Verify, default_store,
};
pub use world::{World, WorldError};

/// The programs in the guide, so that those compile that should and no others. They are run by the tests of `cli`.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/first-hour.md")]
#[doc = include_str!("../../docs/guide/data-modelling.md")]
#[doc = include_str!("../../docs/guide/threads-and-async.md")]
#[doc = include_str!("../../docs/guide/caches-and-secrets.md")]
#[doc = include_str!("../../docs/guide/trust.md")]
mod guide {}

// The derive writes `::segvm::...`; this lets it work inside this crate too.
extern crate self as segvm;
