use std::sync::Arc;

use crate::{heap::HeapError, hooks::AnyError, root::Mismatch, schema::SchemaError};

/// Why a root could not be brought to the type that a program has now. The image is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// The program said that it cannot be done.
    #[error("root {root:?} could not be migrated from {from} to {to}; the image is as it was")]
    Failed {
        /// The root.
        root: Arc<str>,
        /// The old type.
        from: &'static str,
        /// The new type.
        to: &'static str,
        /// What it said.
        source: AnyError,
    },
    /// The program panicked.
    #[error(
        "root {root:?} could not be migrated from {from} to {to}: panicked: {said}; the image is as it was"
    )]
    Panicked {
        /// The root.
        root: Arc<str>,
        /// The old type.
        from: &'static str,
        /// The new type.
        to: &'static str,
        /// What it said.
        said: Box<str>,
    },
    /// What is stored is the old type of none of the migrations.
    #[error("no migration of root {root:?} begins with what is stored: {mismatch}")]
    NoStep {
        /// The root.
        root: Arc<str>,
        /// What is stored, and what the last migration leads to.
        mismatch: Box<Mismatch>,
    },
    /// A type is one that no schema describes.
    #[error("root {root:?}")]
    Schema {
        /// The root.
        root: Arc<str>,
        /// Why.
        source: SchemaError,
    },
    /// The heap has no room for both.
    #[error("root {root:?} could not be migrated; the image is as it was")]
    Heap {
        /// The root.
        root: Arc<str>,
        /// Why.
        source: HeapError,
    },
}
