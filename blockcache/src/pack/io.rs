//! The writing half of an open pack: aligned buffers, the thread that writes them, and how far it has come.
//!
//! One thread writes one pack from front to back, so "written" is a single number. Hashing in the caller and
//! writing here overlap; a bounded queue keeps the memory small.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};

use super::{buffer::Buffer, error::PackError, format::len64};
use crate::{disk::DiskFile, store::StoreError};

/// Buffers that wait to be written; with the one being filled and the one being written, the memory of a writer.
const QUEUE: usize = 6;
/// The first preallocation; each later one is twice as long, up to [`LAST_STEP`].
const FIRST_STEP: u64 = 64 << 20;
const LAST_STEP: u64 = 256 << 20;

/// Why a pack takes no more writes.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    op: &'static str,
    offset: u64,
    wanted: u64,
    kind: io::ErrorKind,
    errno: Option<i32>,
}

impl Failure {
    pub(crate) fn new(op: &'static str, offset: u64, wanted: u64, source: &io::Error) -> Self {
        Self {
            op,
            offset,
            wanted,
            kind: source.kind(),
            errno: source.raw_os_error(),
        }
    }

    /// The error that the call which met it returns.
    pub(crate) fn error(&self, path: &Path) -> PackError {
        let path = path.to_owned();
        let source = self.source();
        match self.kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PackError::Full {
                path,
                offset: self.offset,
                wanted: self.wanted,
                source,
            },
            _ => PackError::Io {
                op: self.op,
                path,
                offset: self.offset,
                source,
            },
        }
    }

    /// The same for a call on the store.
    pub(crate) fn store_error(&self, path: PathBuf) -> StoreError {
        StoreError::Io {
            op: self.op,
            path,
            offset: self.offset,
            source: self.source(),
        }
    }

    pub(crate) fn source(&self) -> io::Error {
        self.errno
            .map_or_else(|| io::Error::from(self.kind), io::Error::from_raw_os_error)
    }
}

/// A pack file that is being written, shared by its writer, its thread and its readers.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Innermost lock of the store: nothing is called while it is held.
    progress: Mutex<Progress>,
    moved: Condvar,
}

#[derive(Debug)]
struct Progress {
    /// Every byte before was handed to the file system.
    written: u64,
    /// Every byte before was handed to the thread or is written: what a reader may wait for.
    queued: u64,
    /// The end of what was preallocated, and the next step.
    allocated: u64,
    step: u64,
    failure: Option<Failure>,
}

/// Whether bytes of an open pack can be read from its file.
#[derive(Debug)]
pub(crate) enum Readable {
    Yes,
    /// They are still in their writer's buffer.
    NotYet,
    Failed(Failure),
}

impl Output {
    pub(crate) fn new(path: PathBuf, file: Arc<dyn DiskFile>) -> Self {
        Self {
            path,
            file,
            progress: Mutex::new(Progress {
                written: 0,
                queued: 0,
                allocated: 0,
                step: FIRST_STEP,
                failure: None,
            }),
            moved: Condvar::new(),
        }
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.progress.lock().failure.clone()
    }

    /// Remembers the first failure, for ever.
    pub(crate) fn fail(&self, failure: Failure) {
        self.progress.lock().failure.get_or_insert(failure);
        self.moved.notify_all();
    }

    /// Waits until the thread has written everything before `end`; never waits for what was not queued.
    pub(crate) fn wait_written(&self, end: u64) -> Readable {
        let mut progress = self.progress.lock();
        loop {
            if progress.written >= end {
                return Readable::Yes;
            }
            if let Some(failure) = &progress.failure {
                return Readable::Failed(failure.clone());
            }
            if progress.queued < end {
                return Readable::NotYet;
            }
            self.moved.wait(&mut progress);
        }
    }

    /// Waits until the thread has written everything that it was given. Not the same as all before the next place: there
    /// may be a gap in between that nobody writes.
    pub(crate) fn wait_queued(&self) -> Result<(), Failure> {
        let mut progress = self.progress.lock();
        loop {
            if let Some(failure) = &progress.failure {
                return Err(failure.clone());
            }
            if progress.written >= progress.queued {
                return Ok(());
            }
            self.moved.wait(&mut progress);
        }
    }

    fn queued(&self, end: u64) {
        let mut progress = self.progress.lock();
        progress.queued = progress.queued.max(end);
    }

    /// Writes at the front of what is written, setting space aside first.
    pub(crate) fn append(&self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let end = offset + len64(bytes.len());
        let step = {
            let mut progress = self.progress.lock();
            if let Some(failure) = &progress.failure {
                return Err(failure.clone());
            }
            progress.queued = progress.queued.max(end);
            (end > progress.allocated).then(|| {
                let from = progress.allocated.max(offset);
                progress.allocated = (from + progress.step).max(end);
                progress.step = (progress.step * 2).min(LAST_STEP);
                (from, progress.allocated - from)
            })
        };
        if let Some((from, len)) = step {
            // A step that does not fit says nothing: the bytes themselves still may, and the write decides.
            let _best_effort = self.file.preallocate(from, len);
        }
        match self.file.write_at(offset, bytes) {
            Ok(()) => {
                let mut progress = self.progress.lock();
                progress.written = end;
                drop(progress);
                self.moved.notify_all();
                Ok(())
            }
            Err(source) => {
                let failure = Failure::new("write", offset, len64(bytes.len()), &source);
                self.fail(failure.clone());
                Err(failure)
            }
        }
    }
}

/// The thread of one pack, and the buffers on their way to it and back.
#[derive(Debug)]
pub(crate) struct Lane {
    jobs: Sender<Buffer>,
    spare: Receiver<Buffer>,
    thread: Option<JoinHandle<()>>,
    /// Threads do not survive a fork: in a child there is nobody to join.
    owner: u32,
}

impl Lane {
    pub(crate) fn start(output: Arc<Output>) -> io::Result<Self> {
        let (jobs, todo) = bounded::<Buffer>(QUEUE);
        let (done, spare) = bounded(QUEUE + 2);
        let run = move || {
            for mut buffer in todo {
                // After a failure the rest is let through unwritten, so that nobody waits for room in the queue.
                let _kept_in_progress = output.append(buffer.offset(), buffer.filled());
                buffer.reset(0);
                // A full or closed return path frees the buffer.
                let _returned = done.try_send(buffer);
            }
        };
        let thread = std::thread::Builder::new()
            .name("segvm-pack".to_owned())
            .spawn(run)?;
        Ok(Self {
            jobs,
            spare,
            thread: Some(thread),
            owner: std::process::id(),
        })
    }

    /// Hands a buffer over; waits while the queue is full.
    pub(crate) fn submit(&self, output: &Output, buffer: Buffer) -> Result<(), Failure> {
        let end = buffer.end();
        // Counted before it is sent: from then on a reader may wait for it.
        output.queued(end);
        self.jobs.send(buffer).map_err(|lost| {
            let source = io::Error::other("the writing thread is gone");
            let failure = Failure::new("write", lost.0.offset(), 0, &source);
            output.fail(failure.clone());
            failure
        })
    }

    /// A buffer that came back, if one did.
    pub(crate) fn spare(&self) -> Option<Buffer> {
        self.spare.try_recv().ok()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        if std::process::id() != self.owner {
            std::mem::forget(thread);
            return;
        }
        // Close, drain, join.
        self.jobs = bounded(0).0;
        let _nothing_to_add = thread.join();
    }
}
