//! The bytes of a file that is mapped into the model.

use std::sync::Arc;

use crate::{
    kernel::Mappable,
    page::{PageRange, PageSize},
};

/// The file behind a region.
#[derive(Clone, Debug)]
pub(super) struct Backing {
    /// Its bytes from `origin` on, as long as the region that was mapped, or less where the file ended.
    bytes: Arc<[u8]>,
    /// Address that shows the first of them.
    origin: usize,
}

impl Backing {
    /// Reads what a mapping of `len` bytes from `offset` shows.
    pub(super) fn read(
        file: &dyn Mappable,
        offset: u64,
        range: PageRange,
    ) -> std::io::Result<Self> {
        let mut bytes = vec![0; range.len()];
        if let Err(error) = file.read_at(offset, &mut bytes) {
            if error.kind() != std::io::ErrorKind::UnexpectedEof {
                return Err(error);
            }
            // A mapping may reach beyond the end. Where that is, only trying tells.
            let (mut readable, mut not) = (0, bytes.len());
            while not - readable > 1 {
                let middle = readable + (not - readable) / 2;
                match file.read_at(offset, bytes.get_mut(..middle).unwrap_or_default()) {
                    Ok(()) => readable = middle,
                    Err(_beyond) => not = middle,
                }
            }
            bytes.truncate(readable);
            file.read_at(offset, &mut bytes)?;
        }
        Ok(Self {
            bytes: bytes.into(),
            origin: range.start(),
        })
    }

    /// The file's page at `at`, zeros after the file's end; `None` where the whole page is beyond it.
    pub(super) fn page(&self, at: usize, page: PageSize) -> Option<Box<[u8]>> {
        let from = self.bytes.get(at - self.origin..)?;
        let there = from.len().min(page.bytes());
        if there == 0 {
            return None;
        }
        let mut copy = vec![0; page.bytes()];
        copy.get_mut(..there)?.copy_from_slice(from.get(..there)?);
        Some(copy.into())
    }
}
