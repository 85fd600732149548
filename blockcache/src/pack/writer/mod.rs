//! Appends blocks and nodes to a pack, a batch at a time.
//!
//! ```text
//!   batch = header page | blocks, aligned, in the order they were put | nodes | directory
//! ```
//!
//! Blocks are filled in and hashed by the caller right in the buffer that goes to the disk; nodes and the directory
//! wait in memory until the batch ends.

mod batch;
mod file;

use std::{path::PathBuf, sync::Arc};

use super::{
    buffer::Buffer,
    error::PackError,
    format::{Entry, FIRST_BATCH, Kind, MAX_NODE, PAGE, PAGE_LEN, block_align, len64},
    io::{Failure, Lane},
    mark::PackMark,
    open::OpenPack,
    seal::seal,
};
use crate::{
    disk::PageCache,
    id::{BlockId, NodeId, PackId},
    store::Store,
    tree::{NodeSink, NodeWriteError},
    unit::{BlockSize, Place},
};

/// What a huge page shows on the machines that have the commonest page size; with larger ones, a run of contiguous entries.
const HUGE: u64 = 2 << 20;

/// How a pack is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterOptions {
    /// Whether the bytes stay in memory.
    pub page_cache: PageCache,
    /// The pack's id where it must be a certain one (golden files); random otherwise.
    pub id: Option<PackId>,
}

/// The batch that is being put together.
#[derive(Debug)]
struct Pending {
    /// Where its header page lies.
    offset: u64,
    nodes: Vec<u8>,
    /// The nodes' ids and lengths, in order.
    node_ids: Vec<(NodeId, u32)>,
    /// Whether anything was put: a batch of nothing is never written.
    used: bool,
}

/// Bytes that nothing is written to, so that what follows lies where it should.
#[derive(Clone, Copy, Debug)]
struct Gap {
    start: u64,
    end: u64,
}

/// The blocks that the caller is filling in.
#[derive(Clone, Copy, Debug)]
struct Room {
    size: BlockSize,
    blocks: usize,
}

/// Writes one pack of a store. Nothing exists on disk before the first block or node is put.
///
/// After a failed write or sync the writer takes nothing more ([`PackError::Dead`]); what was durable before stays
/// readable, and [`Store::adopt`] seals it. Dropped without [`seal`](Self::seal), a pack with a mark waits for
/// `adopt`, and one without is removed.
#[derive(Debug)]
pub struct PackWriter {
    store: Arc<Store>,
    options: WriterOptions,
    /// The file, once it exists.
    open: Option<Arc<OpenPack>>,
    lane: Option<Lane>,
    /// What is filled in and not handed on yet. Its end is where the next byte goes.
    buffer: Option<Buffer>,
    pending: Option<Pending>,
    room: Option<Room>,
    /// Batches that are durable, and where the last one ends.
    batches: u64,
    end: u64,
    bytes_written: u64,
    /// The last gap that [`align`](Self::align) left.
    aligned: Option<Gap>,
    failure_told: bool,
    /// In a forked child nothing may be touched when the value is dropped.
    owner: u32,
}

impl PackWriter {
    /// Bytes of a run that is worth a gap before it ([`align`](Self::align)).
    pub const LONG_RUN: u64 = 16 << 20;

    pub(crate) fn new(store: Arc<Store>, options: WriterOptions) -> Self {
        Self {
            store,
            options,
            open: None,
            lane: None,
            buffer: None,
            pending: None,
            room: None,
            batches: 0,
            end: FIRST_BATCH,
            bytes_written: 0,
            aligned: None,
            failure_told: false,
            owner: std::process::id(),
        }
    }

    /// The pack, once it exists on disk.
    #[must_use]
    pub fn pack(&self) -> Option<PackId> {
        self.open.as_ref().map(|open| open.id)
    }

    /// How far the pack is durable; `None` before the first [`sync`](Self::sync) that had something to do.
    #[must_use]
    pub fn mark(&self) -> Option<PackMark> {
        let pack = self.pack()?;
        (self.batches > 0).then_some(PackMark {
            pack,
            len: self.end,
        })
    }

    /// Has what is written from now on stay in the page cache: for a session that ends, and whose memory is soon wanted
    /// again.
    pub fn keep_in_memory(&mut self) {
        self.options.page_cache = PageCache::Keep;
        if let Some(open) = &self.open {
            open.output.file.page_cache(PageCache::Keep);
        }
    }

    /// Bytes handed to the file system so far, headers and padding included.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// Gives room for the next blocks: at least one, at most `blocks`, to be filled in by the caller and then
    /// [kept](Self::keep). Asking again without keeping gives the same room.
    ///
    /// - **Shape**: a multiple of `size`, page-aligned in memory; the bytes are whatever was there before.
    /// - **Cost**: none, or handing a full buffer (1 MiB) to the writing thread.
    /// - **Blocks**: while the disk is slower than the caller and the queue is full.
    /// - **Errors**: as the disk's; [`PackError::Dead`] after an earlier one.
    pub fn room(&mut self, size: BlockSize, blocks: usize) -> Result<&mut [u8], PackError> {
        self.alive()?;
        self.begin_batch(size.bytes());
        let align = block_align(size);
        let fits = |buffer: &Buffer| buffer.gap(align) + size.bytes() <= buffer.free();
        if !self.buffer.as_ref().is_some_and(fits) {
            let at = self.hand_on()?;
            let mut buffer = self.spare(size.bytes() + usize::try_from(align).unwrap_or(PAGE));
            buffer.reset(at);
            self.buffer = Some(buffer);
        }
        // Always there: either it was, or it has just been made.
        let buffer = self.buffer.get_or_insert_with(|| Buffer::new(size.bytes()));
        let gap = buffer.gap(align);
        buffer.push_zeros(gap);
        let blocks = blocks.max(1).min(buffer.free() >> size.log2());
        self.room = Some(Room { size, blocks });
        Ok(buffer.room().split_at_mut(blocks << size.log2()).0)
    }

    /// Leaves a gap, so that the next block's place in the file is at `address` modulo 2 MiB: what is mapped there can then
    /// be shown by huge pages. Only where a long run follows, `bytes` of it, so that gaps stay a small part of the pack.
    ///
    /// - **Cost**: up to 2 MiB of disk space, at most an eighth of `bytes`; nothing is written there.
    /// - **Errors**: as the disk's, when a full buffer is handed on.
    pub fn align(&mut self, size: BlockSize, address: u64, bytes: u64) -> Result<(), PackError> {
        self.alive()?;
        if bytes < Self::LONG_RUN || !address.is_multiple_of(len64(size.bytes())) {
            return Ok(());
        }
        self.begin_batch(size.bytes());
        let end = self.buffer.as_ref().map_or(self.end, Buffer::end);
        let far = |gap: Gap| end >= gap.end + Self::LONG_RUN;
        if self.aligned.is_none_or(far) {
            let start = self.hand_on()?;
            let end = start + address.wrapping_sub(start) % HUGE;
            let mut buffer = self.spare(size.bytes());
            buffer.reset(end);
            self.buffer = Some(buffer);
            self.aligned = Some(Gap { start, end });
        }
        Ok(())
    }

    /// Takes the blocks of the last room, in order; `None` drops one. Answers where each kept block lies.
    ///
    /// The places are good for reading once the block is [flushed](Self::flush) or durable, and for naming in a tree
    /// at once.
    ///
    /// - **Cost**: moves kept blocks together over the dropped ones; 60 bytes of memory a block.
    /// - **Errors**: as the disk's when the file is made; [`PackError::Kept`] for more ids than the room had blocks.
    pub fn keep(&mut self, ids: &[Option<BlockId>]) -> Result<Vec<Option<Place>>, PackError> {
        self.alive()?;
        let room = self.room.take();
        let blocks = room.map_or(0, |room| room.blocks);
        let (Some(Room { size, .. }), true) = (room, ids.len() <= blocks) else {
            return Err(PackError::Kept {
                kept: ids.len(),
                room: blocks,
            });
        };
        let first = ids.iter().position(Option::is_some);
        self.skip(size, first.unwrap_or(ids.len()));
        if first.is_none() {
            return Ok(vec![None; ids.len()]);
        }
        let open = self.ensure_file()?;
        let (Some(buffer), Some(pending)) = (&mut self.buffer, &mut self.pending) else {
            return Err(PackError::Kept {
                kept: ids.len(),
                room: 0,
            });
        };
        pending.used = true;
        let mut places = Vec::with_capacity(ids.len());
        let mut dropped = 0;
        let mut table = open.table.write();
        for id in ids {
            let Some(id) = id else {
                dropped += size.bytes();
                places.push(None);
                continue;
            };
            if dropped != 0 {
                buffer
                    .room()
                    .copy_within(dropped..dropped + size.bytes(), 0);
            }
            let entry = Entry::block(*id, size, buffer.end());
            buffer.advance(size.bytes());
            table.push(entry);
            places.push(Some(entry.place(open.id)));
        }
        Ok(places)
    }

    /// Where a block lies that this image may share: in this pack, durable or not, or in a sealed one.
    ///
    /// Blocks of packs that other writers have open are not shared: what they promise ends with their image's mark.
    #[must_use]
    pub fn locate(&self, id: &BlockId) -> Option<Place> {
        let own = self.open.as_ref().and_then(|open| {
            let table = open.table.read();
            table
                .find_own(Kind::Block, id.as_bytes())
                .map(|entry| entry.place(open.id))
        });
        own.or_else(|| self.store.locate_to_share(id))
    }

    /// Hands what was kept so far to the writing thread, so that [`Store::read_place`] can read it before the batch
    /// is durable.
    pub fn flush(&mut self) -> Result<(), PackError> {
        self.alive()?;
        self.room = None;
        if self.pending.as_ref().is_some_and(|pending| pending.used) {
            let at = self.hand_on()?;
            let mut buffer = self.spare(PAGE);
            buffer.reset(at);
            self.buffer = Some(buffer);
        }
        Ok(())
    }

    /// Ends the batch and makes everything put so far durable, and the seals of other packs that are relied on. Does nothing more
    /// when nothing was put since the last one.
    ///
    /// 1. Nodes and directory go behind the blocks; the writing thread finishes.
    /// 2. The batch header is written in the page set aside for it.
    /// 3. One sync of the file; the first time also of the directory it is in.
    ///
    /// - **Durable**: on `Ok`, yes, once the mark is recorded: without it nobody trusts the batch.
    /// - **Errors**: as the disk's; the writer is dead then, and the mark before stays valid.
    pub fn sync(&mut self) -> Result<Option<PackMark>, PackError> {
        self.alive()?;
        self.room = None;
        // Also where nothing was put: a record may follow that names what others wrote.
        self.store.settle().map_err(PackError::Settle)?;
        if !self.pending.as_ref().is_some_and(|pending| pending.used) {
            return Ok(self.mark());
        }
        let Some(pending) = self.pending.take() else {
            return Ok(self.mark());
        };
        let open = self.ensure_file()?;
        let (batch, in_buffer) = self.finish_batch(&open, pending)?;

        if !in_buffer {
            self.rewrite(&open.output, batch.offset, &batch.encode())?;
        }
        self.guard(
            open.output
                .file
                .sync()
                .map_err(|source| Failure::new("sync", batch.end(), 0, &source)),
        )?;
        if self.batches == 0 {
            let packs = self.store.packs_dir();
            if let Err(source) = self.store.disk().sync_dir(packs) {
                let failure = Failure::new("sync of the directory", 0, 0, &source);
                open.output.fail(failure.clone());
                self.failure_told = true;
                return Err(failure.error(packs));
            }
        }

        open.table.write().publish();
        self.batches += 1;
        self.end = batch.end();
        // The memory of a burst is given back; one buffer is enough for a small checkpoint.
        self.lane = None;
        Ok(self.mark())
    }

    /// Syncs, then completes the pack: from now on it can be mapped and shared. `None` where nothing was ever put.
    ///
    /// - **Cost**: sorts what the pack holds; writes 48 bytes a block; one sync more.
    /// - **Durable**: on `Ok`, yes.
    pub fn seal(mut self) -> Result<Option<PackId>, PackError> {
        let Some(mark) = self.sync()? else {
            return Ok(None);
        };
        let open = self.ensure_file()?;
        let table = open.table.read();
        let entries = table.durable().to_vec();
        drop(table);
        let file = &*open.output.file;
        let sealed = seal(file, open.id, mark.len, self.batches, &entries);
        if sealed.is_err() {
            self.store.seal_failed(open.id);
        }
        let sealed = self.guard(sealed)?;
        self.bytes_written += sealed.file_len() - mark.len + PAGE_LEN;
        self.store.sealed(open.id);
        Ok(Some(open.id))
    }

    /// Where the file is, for messages and tests.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        self.open.as_ref().map(|open| open.output.path.clone())
    }
}

impl NodeSink for PackWriter {
    fn put_node(&mut self, id: NodeId, bytes: &[u8]) -> Result<(), NodeWriteError> {
        let wrong = |source| NodeWriteError::new(id, source);
        self.alive().map_err(wrong)?;
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if len == 0 || len > MAX_NODE {
            return Err(wrong(PackError::NodeTooLong {
                len: bytes.len(),
                max: MAX_NODE as usize,
            }));
        }
        self.begin_batch(PAGE);
        self.ensure_file().map_err(wrong)?;
        if let Some(pending) = &mut self.pending {
            pending.used = true;
            pending.nodes.extend_from_slice(bytes);
            pending.node_ids.push((id, len));
        }
        Ok(())
    }
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        // First of all the thread: it must not write to a file that is being removed.
        self.lane = None;
        let Some(open) = self.open.take() else {
            return;
        };
        if self.batches == 0 && std::process::id() == self.owner {
            self.store.abandoned(open.id);
            // Nobody knows the pack's name; if it stays, the collector finds it.
            let _best_effort = self.store.disk().remove(&open.output.path);
        }
    }
}
