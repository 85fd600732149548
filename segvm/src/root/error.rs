use std::sync::Arc;

use crate::{gate::GateError, heap::HeapError};

/// Why a root could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// The root holds something else.
    #[error(
        "root {name:?} of image {image:?} holds another type: this program wants {wanted}, whose fingerprint differs from what is there ({found})"
    )]
    WrongType {
        /// The root.
        name: String,
        /// The image.
        image: Arc<str>,
        /// What the program wants, field by field.
        wanted: String,
        /// What is there, where this process knows it, or its fingerprint.
        found: String,
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
