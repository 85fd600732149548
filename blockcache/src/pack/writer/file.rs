//! The file under a writer: made late, written by the thread, dead after its first failure.

use std::{io, sync::Arc};

use parking_lot::RwLock;

use super::{
    super::{
        buffer::{BUFFER, Buffer},
        error::PackError,
        format::{PAGE, PAGE_LEN, pack_header},
        io::{Failure, Lane, Output},
        open::OpenPack,
        table::Table,
    },
    PackWriter,
};
use crate::{disk::Open, id::PackId};

impl PackWriter {
    /// The thread's failure is returned once as it was, by the call that comes next; then the writer is dead.
    pub(super) fn alive(&mut self) -> Result<(), PackError> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        match open.output.failure() {
            None => Ok(()),
            Some(failure) if self.failure_told => Err(PackError::Dead {
                path: open.output.path.clone(),
                source: failure.source(),
            }),
            Some(failure) => {
                self.failure_told = true;
                Err(failure.error(&open.output.path))
            }
        }
    }

    /// Ends the writer's life with the failure's own error.
    pub(super) fn guard<T>(&mut self, result: Result<T, Failure>) -> Result<T, PackError> {
        result.map_err(|failure| {
            let Some(open) = &self.open else {
                return failure.error(self.store.packs_dir());
            };
            self.failure_told = true;
            open.output.fail(failure.clone());
            failure.error(&open.output.path)
        })
    }

    /// Makes the file where it does not exist yet.
    pub(super) fn ensure_file(&mut self) -> Result<Arc<OpenPack>, PackError> {
        if let Some(open) = &self.open {
            return Ok(open.clone());
        }
        let (id, path, file) = loop {
            let id = self.options.id.unwrap_or_else(random_id);
            let path = self.store.pack_path(id);
            match self.store.disk().open(&path, Open::CreateNew) {
                Ok(file) => break (id, path, file),
                Err(taken)
                    if taken.kind() == io::ErrorKind::AlreadyExists
                        && self.options.id.is_none() => {}
                Err(source) => {
                    return Err(Failure::new("creating", 0, 0, &source).error(&path));
                }
            }
        };
        file.page_cache(self.options.page_cache);
        if let Some(header) = self
            .buffer
            .as_mut()
            .and_then(|buffer| buffer.get_mut(0, PAGE))
        {
            header.copy_from_slice(&pack_header(id));
        }
        let open = Arc::new(OpenPack {
            id,
            output: Arc::new(Output::new(path, file)),
            table: RwLock::new(Table::default()),
        });
        self.store.opened(open.clone());
        self.open = Some(open.clone());
        Ok(open)
    }

    /// Gives the buffer to the thread; answers the file offset after it.
    pub(super) fn hand_on(&mut self) -> Result<u64, PackError> {
        let open = self.ensure_file()?;
        let Some(buffer) = self.buffer.take() else {
            return Ok(self.end);
        };
        let end = buffer.end();
        if buffer.is_empty() {
            return Ok(end);
        }
        self.bytes_written += end - buffer.offset();
        let lane = match self.lane.take() {
            Some(lane) => lane,
            None => self.guard(Lane::start(open.output.clone()).map_err(|source| {
                Failure::new("starting a thread to write", buffer.offset(), 0, &source)
            }))?,
        };
        let submitted = lane.submit(&open.output, buffer);
        self.lane = Some(lane);
        self.guard(submitted)?;
        Ok(end)
    }

    /// A buffer for at least `wanted` bytes.
    pub(super) fn spare(&self, wanted: usize) -> Buffer {
        self.lane
            .as_ref()
            .and_then(Lane::spare)
            .filter(|buffer| buffer.capacity() >= wanted)
            .unwrap_or_else(|| Buffer::new(wanted.max(BUFFER)))
    }

    /// Writes a page again that was set aside.
    pub(super) fn rewrite(
        &mut self,
        output: &Output,
        offset: u64,
        page: &[u8; PAGE],
    ) -> Result<(), PackError> {
        let mut buffer = match self.buffer.take() {
            Some(buffer) => buffer,
            None => Buffer::new(PAGE),
        };
        buffer.reset(offset);
        buffer.push(page);
        let written = output.file.write_at(offset, buffer.filled());
        self.buffer = Some(buffer);
        self.bytes_written += PAGE_LEN;
        self.guard(written.map_err(|source| Failure::new("write", offset, PAGE_LEN, &source)))
    }
}

fn random_id() -> PackId {
    use std::hash::{BuildHasher, RandomState};
    // Keyed by the kernel's randomness. A forked child may repeat its parent's: then the file exists already.
    PackId(RandomState::new().hash_one(std::process::id()))
}
