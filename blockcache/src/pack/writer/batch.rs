//! A batch around its blocks: the page set aside before them, nodes and directory behind.

use super::{
    super::{
        buffer::{BUFFER, Buffer},
        error::PackError,
        format::{Batch, ENTRY, Entry, PAGE, len64},
        open::OpenPack,
    },
    HUGE, PackWriter, Pending,
};
use crate::unit::BlockSize;
use zerocopy::IntoBytes;

impl PackWriter {
    /// Sets the header page of a new batch aside, at the front of the buffer.
    pub(super) fn begin_batch(&mut self, wanted: usize) {
        if self.pending.is_some() {
            return;
        }
        let first = self.open.is_none();
        let mut buffer = match self.buffer.take() {
            Some(buffer) => buffer,
            None => Buffer::new(BUFFER.max(wanted + (128 << 10))),
        };
        buffer.reset(if first { 0 } else { self.end });
        // A pack begins with its header and the page where the seal will be; the header is filled in when the
        // file has its name.
        buffer.push_zeros(if first { 3 * PAGE } else { PAGE });
        self.buffer = Some(buffer);
        self.pending = Some(Pending {
            offset: self.end,
            nodes: Vec::new(),
            node_ids: Vec::new(),
            used: false,
        });
    }

    /// Drops blocks that would have been the first behind a gap: what follows lies as much farther on as its address does.
    pub(super) fn skip(&mut self, size: BlockSize, blocks: usize) {
        let (Some(buffer), Some(gap)) = (&mut self.buffer, &mut self.aligned) else {
            return;
        };
        if buffer.is_empty() && buffer.offset() == gap.end {
            let wanted = gap.end - gap.start + len64(blocks << size.log2());
            gap.end = gap.start + wanted % HUGE;
            buffer.reset(gap.end);
        }
    }

    /// Appends bytes of any length.
    fn push(&mut self, mut bytes: &[u8]) -> Result<(), PackError> {
        while !bytes.is_empty() {
            let taken = self.buffer.as_mut().map_or(0, |buffer| buffer.push(bytes));
            bytes = bytes.split_at(taken).1;
            if !bytes.is_empty() {
                let at = self.hand_on()?;
                let mut buffer = self.spare(PAGE);
                buffer.reset(at);
                self.buffer = Some(buffer);
            }
        }
        Ok(())
    }

    fn next_byte(&self) -> u64 {
        self.buffer.as_ref().map_or(self.end, Buffer::end)
    }

    /// Appends nodes and directory and writes all that is buffered. Answers whether that included the header.
    pub(super) fn finish_batch(
        &mut self,
        open: &OpenPack,
        pending: Pending,
    ) -> Result<(Batch, bool), PackError> {
        let nodes_at = self.next_byte();
        let mut offset = nodes_at;
        {
            let mut table = open.table.write();
            for &(id, len) in &pending.node_ids {
                table.push(Entry::node(id, len, offset));
                offset += u64::from(len);
            }
        }
        self.push(&pending.nodes)?;
        let pad = offset.next_multiple_of(16) - offset;
        self.push([0; 16].split_at(usize::try_from(pad).unwrap_or(0)).0)?;

        let (mut entries, mut crc) = (0, 0);
        loop {
            // Copied out in pieces, so that the lock is not held while a full buffer waits for the disk.
            let mut piece = [0_u8; 64 * ENTRY];
            let n = {
                let table = open.table.read();
                let next = table.pending().get(entries..).unwrap_or_default();
                let next = next.get(..64).unwrap_or(next).as_bytes();
                piece.split_at_mut(next.len()).0.copy_from_slice(next);
                next.len()
            };
            if n == 0 {
                break;
            }
            let piece = piece.split_at(n).0;
            crc = crc32c::crc32c_append(crc, piece);
            entries += n / ENTRY;
            self.push(piece)?;
        }

        let batch = Batch {
            pack: open.id,
            sequence: self.batches,
            offset: pending.offset,
            nodes: nodes_at,
            nodes_len: len64(pending.nodes.len()),
            entries: len64(entries),
            directory_crc: crc,
        };
        let Some(mut buffer) = self.buffer.take() else {
            return Ok((batch, false));
        };
        buffer.push_to_page();
        let in_buffer = match buffer.get_mut(batch.offset, PAGE) {
            Some(page) => {
                page.copy_from_slice(&batch.encode());
                true
            }
            None => false,
        };
        // What the thread still has comes first; the rest is written from here: a small batch never wakes it.
        let written = open
            .output
            .wait_queued()
            .and_then(|()| open.output.append(buffer.offset(), buffer.filled()));
        self.bytes_written += len64(buffer.filled().len());
        self.buffer = Some(buffer);
        self.guard(written)?;
        Ok((batch, in_buffer))
    }
}
