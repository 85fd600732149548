//! Reads packs from front to back and hashes what is in them, on a few threads.
//!
//! Each thread takes a piece of a pack, reads it past the page cache into memory of its own and hashes what lies in
//! it: while one hashes, another reads. What is between blocks, nodes, headers and directories has to be zero.

use std::{io, ops::Range, sync::Arc};

use crossbeam_channel::Receiver;
use segvm_os::AlignedBuf;

use crate::{
    disk::DiskFile,
    id::{BlockId, NodeId, PackId},
    pack::format::{Entry, Kind, PAGE_LEN, align_up, len64},
};

/// How much one read is to bring: more than a disk needs to run at its speed, and little enough to stay in a cache
/// until it is hashed.
const JOB: u64 = 1 << 20;

/// What lies somewhere in a pack.
pub(super) struct Piece {
    range: Range<u64>,
    /// What to hash; none for what was checked already.
    entry: Option<Entry>,
}

/// A part of a pack.
pub(super) struct Job {
    /// The pack's number in the catalog.
    number: usize,
    pack: PackId,
    file: Arc<dyn DiskFile>,
    /// What is in no piece has to be zero.
    range: Range<u64>,
    /// In order, without overlap.
    pieces: Vec<Piece>,
}

/// What a thread found.
pub(super) struct Fault {
    pub(super) number: usize,
    pub(super) pack: PackId,
    pub(super) offset: u64,
    pub(super) what: FaultKind,
}

pub(super) enum FaultKind {
    /// The bytes are not what the entry names.
    Hash(Entry),
    /// The bytes could not be read; the entry, where there is one.
    Read(Option<Entry>, io::Error),
    /// So many bytes, from the first that is not zero to the last.
    Gap(u64),
}

/// What a thread did.
#[derive(Default)]
pub(super) struct Done {
    pub(super) faults: Vec<Fault>,
    pub(super) hashed: u64,
    pub(super) bytes: u64,
}

/// Cuts a pack into jobs.
pub(super) struct Cutter<'a> {
    send: &'a mut dyn FnMut(Job),
    number: usize,
    pack: PackId,
    file: Arc<dyn DiskFile>,
    /// Everything before was sent.
    from: u64,
    /// Everything before was said.
    at: u64,
    pieces: Vec<Piece>,
}

impl<'a> Cutter<'a> {
    pub(super) fn new(
        send: &'a mut dyn FnMut(Job),
        number: usize,
        pack: PackId,
        file: Arc<dyn DiskFile>,
    ) -> Self {
        Self {
            send,
            number,
            pack,
            file,
            from: 0,
            at: 0,
            pieces: Vec::new(),
        }
    }

    /// Says what is at a range; answers `false`, and leaves it out, where that is not behind all that was said.
    pub(super) fn piece(&mut self, range: Range<u64>, entry: Option<Entry>) -> bool {
        if range.start < self.at {
            return false;
        }
        self.zeros_to(range.start);
        if range.end - self.from > JOB {
            self.send();
        }
        self.at = range.end;
        self.pieces.push(Piece { range, entry });
        true
    }

    /// Says that there have to be zeros up to a place.
    pub(super) fn zeros_to(&mut self, offset: u64) {
        while offset.saturating_sub(self.from) > JOB {
            self.at = self.at.max(self.from + JOB).min(offset);
            self.send();
        }
        self.at = self.at.max(offset);
    }

    /// Says that nothing is known of what comes before a place.
    pub(super) fn skip_to(&mut self, offset: u64) {
        self.send();
        self.at = self.at.max(offset);
        self.from = self.at;
    }

    /// Goes to a place that may be before what was said, to say more of it.
    pub(super) fn again_from(&mut self, offset: u64) {
        self.send();
        self.at = offset;
        self.from = offset;
    }

    /// Sends what was said.
    pub(super) fn send(&mut self) {
        if self.at > self.from {
            (self.send)(Job {
                number: self.number,
                pack: self.pack,
                file: self.file.clone(),
                range: self.from..self.at,
                pieces: std::mem::take(&mut self.pieces),
            });
        }
        self.from = self.at;
    }
}

/// Does jobs until there are no more.
pub(super) fn work(jobs: &Receiver<Job>, progress: &dyn Fn(u64)) -> io::Result<Done> {
    let mut done = Done::default();
    let mut memory = AlignedBuf::zeroed(0)?;
    for job in jobs {
        let from = job.range.start / PAGE_LEN * PAGE_LEN;
        let len = align_up(job.range.end, PAGE_LEN) - from;
        // A job is not longer than the longest block and what leads up to it.
        let len = usize::try_from(len).map_err(|_wide| io::ErrorKind::OutOfMemory)?;
        if memory.len() < len {
            memory = AlignedBuf::zeroed(len.next_power_of_two())?;
        }
        let bytes = memory.split_at_mut(len).0;
        match job.file.read_direct(from, bytes) {
            Ok(()) => check(&job, from, bytes, &mut done),
            Err(_named_below) => piecewise(&job, bytes, &mut done),
        }
        let len = job.range.end - job.range.start;
        done.bytes += len;
        progress(len);
    }
    Ok(done)
}

fn check(job: &Job, from: u64, bytes: &[u8], done: &mut Done) {
    let part = |range: Range<u64>| {
        let start = usize::try_from(range.start - from).ok()?;
        let end = usize::try_from(range.end - from).ok()?;
        bytes.get(start..end)
    };
    let mut at = job.range.start;
    for piece in &job.pieces {
        check_gap(job, at, part(at..piece.range.start), done);
        if let Some(entry) = piece.entry {
            done.hashed += 1;
            if !part(piece.range.clone()).is_some_and(|bytes| is(&entry, bytes)) {
                fault(job, piece.range.start, FaultKind::Hash(entry), done);
            }
        }
        at = piece.range.end;
    }
    check_gap(job, at, part(at..job.range.end), done);
}

fn check_gap(job: &Job, at: u64, gap: Option<&[u8]>, done: &mut Done) {
    let set = |byte: &u8| *byte != 0;
    let gap = gap.unwrap_or_default();
    if let (Some(first), Some(last)) = (gap.iter().position(set), gap.iter().rposition(set)) {
        let len = len64(last - first) + 1;
        fault(job, at + len64(first), FaultKind::Gap(len), done);
    }
}

/// After a read that failed: which of the pieces it was.
fn piecewise(job: &Job, memory: &mut [u8], done: &mut Done) {
    for piece in &job.pieces {
        let Some(entry) = piece.entry else { continue };
        let len = usize::try_from(piece.range.end - piece.range.start).unwrap_or(usize::MAX);
        let Some(bytes) = memory.get_mut(..len) else {
            continue;
        };
        let offset = piece.range.start;
        match job.file.read_at(offset, bytes) {
            Ok(()) if is(&entry, bytes) => {}
            Ok(()) => fault(job, offset, FaultKind::Hash(entry), done),
            Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => {
                fault(job, offset, FaultKind::Hash(entry), done);
            }
            Err(source) => fault(job, offset, FaultKind::Read(Some(entry), source), done),
        }
        done.hashed += 1;
    }
    // Gaps that cannot be read harm nobody: the pieces beside them say enough.
}

fn fault(job: &Job, offset: u64, what: FaultKind, done: &mut Done) {
    done.faults.push(Fault {
        number: job.number,
        pack: job.pack,
        offset,
        what,
    });
}

fn is(entry: &Entry, bytes: &[u8]) -> bool {
    match entry.kind() {
        Some(Kind::Block) => BlockId::of(bytes).as_bytes() == entry.id(),
        Some(Kind::Node) => NodeId::of(bytes).as_bytes() == entry.id(),
        None => false,
    }
}
