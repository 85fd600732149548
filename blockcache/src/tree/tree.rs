//! The tree of one segment.

use std::ops::{ControlFlow, Range};

use super::{
    codec::{self, HOLE, Head, RawId},
    error::TreeError,
    node::Link,
    reader::{self, Reader, Spot},
    shape::{self, FANOUT, MAX_LEN},
    source::{NodeSink, NodeSource, NodeWriteError},
};
use crate::{
    id::{BlockId, NodeId, TreeId},
    unit::{BlockIndex, BlockSize},
};

/// The tree of one segment, with the fan-out of the format.
pub type Tree = TreeOf<FANOUT>;

/// Which block is where in a segment: a tree that is read as far as it is touched and written as far as it changed.
///
/// Ids depend on contents, length and block size alone, not on the order of changes or on how the segment grew.
/// Use [`Tree`]: any other fan-out than [`FANOUT`] is for tests and measurement, and gives other ids.
///
/// The source is an argument of every call that may have to read, so that a tree can outlive any one view of a store.
/// It must be able to give what the tree was opened from and everything that a seal has put.
#[derive(Debug)]
pub struct TreeOf<const F: usize> {
    block_size: BlockSize,
    /// In bytes; at most [`MAX_LEN`].
    len: u64,
    /// At level `height::<F>(blocks)`; holds nothing beyond `len`.
    root: Link,
    /// The id while nothing has changed since it was sealed or opened.
    id: Option<TreeId>,
}

impl<const F: usize> TreeOf<F> {
    /// Makes the tree of a segment that is one hole.
    ///
    /// - **Errors**: [`TreeError::TooLong`] beyond [`MAX_LEN`].
    pub const fn new(block_size: BlockSize, len: u64) -> Result<Self, TreeError> {
        if len > MAX_LEN {
            return Err(TreeError::TooLong { len });
        }
        Ok(Self {
            block_size,
            len,
            root: Link::hole(),
            id: None,
        })
    }

    /// Opens a stored tree.
    ///
    /// - **Cost**: reads the head only.
    pub fn open(source: &dyn NodeSource, id: TreeId) -> Result<Self, TreeError> {
        let head = reader::head::<F>(source, id)?;
        Ok(Self {
            block_size: head.block_size,
            len: head.len,
            root: head.root.map_or(Link::hole(), Link::stored),
            id: Some(id),
        })
    }

    /// The segment's length in bytes.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a length of zero is nothing special"
    )]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// The size of the segment's blocks.
    #[must_use]
    pub const fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// How many blocks, holes included, cover the segment.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.block_size.count(self.len)
    }

    /// How many levels of nodes lie between the head and the blocks.
    #[must_use]
    pub const fn height(&self) -> u8 {
        shape::height::<F>(self.blocks())
    }

    /// The tree's id; none where it has changed since it was sealed or opened, or was never sealed.
    #[must_use]
    pub const fn id(&self) -> Option<TreeId> {
        self.id
    }

    /// Changes the length. Blocks that lie wholly beyond the end become holes; what lies beyond it in the last block
    /// is the caller's to clear.
    ///
    /// - **Cost**: O(height). Reads only to shrink.
    /// - **Errors**: as [`TreeOf::get`], and [`TreeError::TooLong`]; the tree is as it was.
    pub fn set_len(&mut self, source: &dyn NodeSource, len: u64) -> Result<(), TreeError> {
        if len > MAX_LEN {
            return Err(TreeError::TooLong { len });
        }
        if len == self.len {
            return Ok(());
        }
        let (before, blocks) = (self.height(), self.block_size.count(len));
        let after = shape::height::<F>(blocks);
        if blocks < self.blocks() {
            let top = self.top();
            self.root
                .cut(&Reader::<F>::new(source, self.blocks()), top, blocks)?;
        }
        for _ in before..after {
            self.root.raise();
        }
        for _ in after..before {
            self.root.lower();
        }
        self.len = len;
        self.id = None;
        Ok(())
    }

    /// The id of a block; none for a hole.
    ///
    /// - **Cost**: O(height); reads the nodes on the way that are not loaded, and keeps them.
    /// - **Errors**: [`TreeError::OutOfRange`] beyond the end; [`TreeError::Read`] and [`TreeError::Malformed`] for a
    ///   node on the way.
    pub fn get(
        &mut self,
        source: &dyn NodeSource,
        index: BlockIndex,
    ) -> Result<Option<BlockId>, TreeError> {
        self.check(index)?;
        let top = self.top();
        let id = self.root.get(&self.reader(source), top, index.0)?;
        Ok((id != HOLE).then(|| BlockId::from_bytes(id)))
    }

    /// Says which block is at a place; none makes a hole. Setting what is there already changes nothing.
    ///
    /// - **Cost**: as [`TreeOf::get`]; hashes nothing.
    /// - **Errors**: as [`TreeOf::get`]; the tree is as it was.
    pub fn set(
        &mut self,
        source: &dyn NodeSource,
        index: BlockIndex,
        id: Option<BlockId>,
    ) -> Result<(), TreeError> {
        self.check(index)?;
        let top = self.top();
        let reader = self.reader(source);
        let id: RawId = id.map_or(HOLE, |id| *id.as_bytes());
        if self.root.set(&reader, top, index.0, id)? {
            self.id = None;
        }
        Ok(())
    }

    /// Puts what has changed, children before parents and the head last, and returns the tree's id.
    ///
    /// A tree that has not changed puts nothing. A tree is clean once its seal has succeeded; where the sink then fails
    /// to make durable what it took, open the last durable tree and apply the changes again.
    ///
    /// - **Cost**: hashes and puts each changed node once: at most height nodes per changed block, and the head.
    /// - **Errors**: the sink's. All that was dirty still is, so a later seal puts everything again.
    pub fn seal(&mut self, sink: &mut dyn NodeSink) -> Result<TreeId, NodeWriteError> {
        if let Some(id) = self.id {
            return Ok(id);
        }
        let mut scratch = Vec::new();
        self.root.seal(self.height(), sink, &mut scratch)?;
        let head = Head {
            len: self.len,
            block_size: self.block_size,
            height: self.height(),
            root: self.root.id(),
        };
        codec::encode_head(&mut scratch, &head);
        let id = NodeId::of(&scratch);
        sink.put_node(id, &scratch)?;
        self.root.settle();
        self.id = Some(id.into());
        Ok(id.into())
    }

    /// Visits the blocks of a range in order, until told to stop. Holes are not visited.
    ///
    /// - **Cost**: O(blocks visited + nodes on their way). Nodes that had to be read are not kept.
    /// - **Errors**: as [`TreeOf::get`], but a range may reach beyond the end.
    pub fn for_each_block(
        &self,
        source: &dyn NodeSource,
        range: Range<BlockIndex>,
        mut visit: impl FnMut(BlockIndex, BlockId) -> ControlFlow<()>,
    ) -> Result<(), TreeError> {
        let _stopped_early =
            self.root
                .visit(&self.reader(source), self.top(), &range, &mut visit)?;
        Ok(())
    }

    /// Forgets loaded nodes that are clean; they are read again when touched.
    pub fn shrink(&mut self) {
        self.root.shrink();
    }

    /// Bytes of memory that loaded nodes occupy.
    ///
    /// - **Cost**: O(loaded nodes).
    #[must_use]
    pub fn loaded_bytes(&self) -> usize {
        self.root.loaded_bytes()
    }

    const fn top(&self) -> Spot {
        Spot {
            level: self.height(),
            first: 0,
        }
    }

    const fn reader<'a>(&self, source: &'a dyn NodeSource) -> Reader<'a, F> {
        Reader::new(source, self.blocks())
    }

    const fn check(&self, index: BlockIndex) -> Result<(), TreeError> {
        if index.0 < self.blocks() {
            return Ok(());
        }
        Err(TreeError::OutOfRange {
            index,
            blocks: self.blocks(),
        })
    }
}
