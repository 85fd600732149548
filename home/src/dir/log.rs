//! The log of an image: found from its end, read backwards, never more than the tail to know the head.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use segvm_blockcache::disk::{Disk, DiskFile, Open};

use super::frame::{self, FRAME_MAX, Frame, FrameFault, SECTOR};
use crate::home::Record;

/// How much is read at most at once when looking for the last frame, and how much a long log grows by.
pub(super) const STEP: usize = 64 << 10;
/// How much is read first: the whole log of an image with few commits, and where a longer one usually has its head.
pub(super) const FIRST: usize = 4 << 10;

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file system said no.
    #[error("cannot read {bytes} bytes at offset {offset} of {}: {source}", path.display())]
    Io {
        /// The log.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// How many.
        bytes: usize,
        /// What it said.
        source: io::Error,
    },
    /// A record that was complete once is not any more: newer ones stand on it.
    #[error("{} is damaged at offset {offset}: {fault}", path.display())]
    Damaged {
        /// The log.
        path: PathBuf,
        /// Where the record is.
        offset: u64,
        /// What is wrong with it.
        fault: FrameFault,
    },
    /// There is more after the last whole record than one unfinished record could leave.
    #[error("{} is damaged: no whole record ends in the {bytes} bytes before offset {end}", path.display())]
    NoRecord {
        /// The log.
        path: PathBuf,
        /// Where the last byte that is not zero lies, about.
        end: u64,
        /// How far back was looked.
        bytes: u64,
    },
}

/// The file and its name.
#[derive(Clone, Debug)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
}

/// What the end of a log looks like.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail {
    /// The last whole frame.
    pub(super) head: Option<Frame>,
    /// Where the rubble of an unfinished append ends; at or before the head's end where there is none.
    pub(super) rubble_end: u64,
}

impl Tail {
    /// Where the next frame goes.
    pub(super) fn end(&self) -> u64 {
        let end = |head: &Frame| head.offset + u64::from(head.len);
        self.head.as_ref().map_or(0, end)
    }
}

impl LogFile {
    /// Opens the log at `path`, if there is one.
    pub(super) fn find(disk: &dyn Disk, path: &Path, how: Open) -> io::Result<Option<Self>> {
        match disk.open(path, how) {
            Ok(file) => Ok(Some(Self {
                path: path.to_owned(),
                file,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, LogError> {
        let mut bytes = vec![0; len];
        match self.file.read_at(offset, &mut bytes) {
            Ok(()) => Ok(bytes),
            Err(source) => Err(LogError::Io {
                path: self.path.clone(),
                offset,
                bytes: len,
                source,
            }),
        }
    }

    /// Finds the last whole frame.
    ///
    /// - **Cost**: reads [`FIRST`] bytes, then twice as many as before each time: in all no more than twice the zeros set aside
    ///   (at most [`STEP`], or what a failed append of a long frame left) and the frame, however long the log is.
    pub(super) fn tail(&self) -> Result<Tail, LogError> {
        let len = self.file.len().map_err(|source| LogError::Io {
            path: self.path.clone(),
            offset: 0,
            bytes: 0,
            source,
        })?;
        let mut tail = Tail::default();
        let mut chunk_end = len - len % SECTOR as u64;
        let mut most = FIRST;
        while chunk_end > 0 {
            let chunk_start = chunk_end.saturating_sub(most as u64);
            let wanted = usize::try_from(chunk_end - chunk_start).unwrap_or(most);
            let chunk = self.read(chunk_start, wanted)?;
            most = (most * 2).min(STEP);
            let mut seen = chunk.as_slice();
            let mut end = chunk_end;
            while let Some((before, sector)) = seen.split_last_chunk::<SECTOR>() {
                if tail.rubble_end == 0 && *sector != [0; SECTOR] {
                    tail.rubble_end = end;
                }
                if let Some(frame) = self.frame_ending_at(end, seen)? {
                    tail.head = Some(frame);
                    return Ok(tail);
                }
                seen = before;
                end -= SECTOR as u64;
                if tail.rubble_end.saturating_sub(end) > FRAME_MAX as u64 {
                    return Err(LogError::NoRecord {
                        path: self.path.clone(),
                        end: tail.rubble_end,
                        bytes: FRAME_MAX as u64,
                    });
                }
            }
            chunk_end = chunk_start;
        }
        Ok(tail)
    }

    /// The frame that ends at `end`; `seen` is what was read of the log up to there, at least a sector.
    fn frame_ending_at(&self, end: u64, seen: &[u8]) -> Result<Option<Frame>, LogError> {
        let Some(len) = frame::length_from_end(seen) else {
            return Ok(None);
        };
        let Some(offset) = end.checked_sub(len as u64) else {
            return Ok(None);
        };
        let whole = seen.len().checked_sub(len).and_then(|at| seen.get(at..));
        let frame = match whole {
            Some(bytes) => frame::decode(bytes, offset),
            None => frame::decode(&self.read(offset, len)?, offset),
        };
        match frame {
            Ok(frame) => Ok(Some(frame)),
            Err(FrameFault::Shape | FrameFault::Checksum | FrameFault::Misplaced(_)) => Ok(None),
            // Whole, and yet not to be understood: that is no torn write.
            Err(fault) => Err(self.damaged(offset, fault)),
        }
    }

    fn damaged(&self, offset: u64, fault: FrameFault) -> LogError {
        let path = self.path.clone();
        LogError::Damaged {
            path,
            offset,
            fault,
        }
    }

    /// Reads the frame before `newer`.
    fn before(&self, newer: Link) -> Result<Option<Frame>, LogError> {
        if newer.previous == 0 {
            return match newer.offset {
                0 => Ok(None),
                offset => Err(self.damaged(offset, FrameFault::Lengths)),
            };
        }
        let Some(offset) = newer.offset.checked_sub(newer.previous.into()) else {
            return Err(self.damaged(newer.offset, FrameFault::Lengths));
        };
        let len = usize::try_from(newer.previous).unwrap_or(FRAME_MAX);
        let damaged = |fault| self.damaged(offset, fault);
        let frame = frame::decode(&self.read(offset, len)?, offset).map_err(damaged)?;
        let (got, wanted) = (frame.record.seq, newer.seq - 1);
        if got != wanted {
            return Err(damaged(FrameFault::Sequence { got, wanted }));
        }
        Ok(Some(frame))
    }
}

/// What a frame says about the one before it.
#[derive(Clone, Copy, Debug)]
struct Link {
    offset: u64,
    /// Its length; 0 exactly where `seq` is 0.
    previous: u32,
    seq: u64,
}

/// The records of a log from its head backwards; an error ends them.
pub(super) struct Backwards {
    log: LogFile,
    head: Option<Frame>,
    last: Option<Link>,
}

impl Backwards {
    pub(super) fn from(log: LogFile, head: Option<Frame>) -> Self {
        Self {
            log,
            head,
            last: None,
        }
    }
}

impl Iterator for Backwards {
    type Item = Result<Record, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let frame = match (self.head.take(), self.last.take()) {
            (Some(head), _) => head,
            (None, Some(newer)) => match self.log.before(newer).transpose()? {
                Ok(frame) => frame,
                Err(error) => return Some(Err(error)),
            },
            (None, None) => return None,
        };
        self.last = Some(Link {
            offset: frame.offset,
            previous: frame.previous,
            seq: frame.record.seq,
        });
        Some(Ok(frame.record))
    }
}
