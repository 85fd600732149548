use std::sync::Arc;

use super::Mismatch;
use crate::{gate::GateError, heap::HeapError, schema::SchemaError};

/// Why a root could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// The root holds something else.
    #[error("{mismatch}")]
    WrongType {
        /// The root.
        name: String,
        /// What differs.
        mismatch: Box<Mismatch>,
    },
    /// The type is one that no schema describes.
    #[error("root {name:?} of image {image:?}")]
    Schema {
        /// The root.
        name: String,
        /// The image.
        image: Arc<str>,
        /// Why.
        source: SchemaError,
    },
    /// The heap said no.
    #[error("root {name:?} of image {image:?} could not be made")]
    Heap {
        /// The root.
        name: String,
        /// The image.
        image: Arc<str>,
        /// Why.
        source: HeapError,
    },
    /// The session has ended, or this is a forked child.
    #[error("root {name:?} of image {image:?} cannot be opened")]
    Gate {
        /// The root.
        name: String,
        /// The image.
        image: Arc<str>,
        /// Why.
        source: GateError,
    },
}

/// Why a root could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// This thread holds a guard that the new one would wait for.
    #[error(
        "this thread already holds a guard of root {root:?}: drop it first (waiting for it would never end)"
    )]
    HeldHere {
        /// The root.
        root: Arc<str>,
    },
    /// The session has ended.
    #[error(
        "root {root:?}: the session of image {image:?} has ended; open the image again and take the root from there"
    )]
    Closed {
        /// The root.
        root: Arc<str>,
        /// The image.
        image: Arc<str>,
    },
    /// This process is a child of the one that opened the session.
    #[error(
        "root {root:?}: this process was forked from the one that opened image {image:?} and has no session of its own"
    )]
    Forked {
        /// The root.
        root: Arc<str>,
        /// The image.
        image: Arc<str>,
    },
    /// The session was restored to a time when the root held another type, or could not be made again.
    #[error(
        "root {root:?}: in the commit that image {image:?} was restored to, it does not hold what this handle was opened for"
    )]
    WrongType {
        /// The root.
        root: Arc<str>,
        /// The image.
        image: Arc<str>,
    },
}
