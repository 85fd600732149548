//! Where nodes come from and where they go: the two seams of the tree.
//!
//! A store implements both; so does anything that holds nodes by id (a test's map, a server's answer).

use std::error::Error;

use crate::id::NodeId;

/// Why a node's bytes could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeReadError {
    /// The node is known by id but is not here: it has to be fetched, nothing is broken.
    #[error("node {id:.12} is not in this store")]
    Absent {
        /// What was asked for.
        id: NodeId,
    },
    /// Bytes are there, and they are not what the id names.
    #[error("node {id:.12} is damaged")]
    Damaged {
        /// What was asked for.
        id: NodeId,
        /// What the store found wrong, with its path and offset.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The bytes could not be read.
    #[error("node {id:.12} could not be read")]
    Io {
        /// What was asked for.
        id: NodeId,
        /// The failed operation, with its path and offset.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why a node could not be put.
#[derive(Debug, thiserror::Error)]
#[error("node {id:.12} could not be written")]
#[non_exhaustive]
pub struct NodeWriteError {
    /// The node.
    pub id: NodeId,
    /// The failed operation, with its path and offset.
    pub source: Box<dyn Error + Send + Sync>,
}

impl NodeWriteError {
    /// Says that putting `id` failed because of `source`.
    pub fn new(id: NodeId, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            id,
            source: source.into(),
        }
    }
}

/// Gives nodes by id.
pub trait NodeSource {
    /// The encoded bytes of a node, already checked against its id.
    ///
    /// - **Errors**: [`NodeReadError::Absent`] where the node is not here, the others where it should be.
    fn node(&self, id: NodeId) -> Result<Vec<u8>, NodeReadError>;
}

/// Takes nodes.
pub trait NodeSink {
    /// Keeps a node. One that is there already may be ignored: equal ids mean equal bytes.
    fn put_node(&mut self, id: NodeId, bytes: &[u8]) -> Result<(), NodeWriteError>;
}
