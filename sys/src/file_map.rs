//! A whole file, mapped for reading.

use std::{fmt, fs::File, io, ops::Deref};

use memmap2::{Mmap, MmapOptions};

/// The bytes of a whole file that never changes again; unmapped when dropped.
///
/// For files that are final once they have their name: sealed packs, indices, extent maps. That nobody changes them is
/// the store's rule, and whoever breaks it owns the process anyway: a store is trusted as the executable is. Hence
/// making one is a safe call.
///
/// A forked child keeps a working copy of the mapping. A read error of the disk arrives as SIGBUS where the bytes are
/// touched; see [`watch_faults`](crate::watch_faults).
pub struct FileMap {
    /// `None` for an empty file, which cannot be mapped.
    map: Option<Mmap>,
}

impl FileMap {
    /// Maps all of `file`, which is sealed; the descriptor may be closed afterwards.
    ///
    /// - **Cost**: O(1); pages come in when they are read.
    /// - **Errors**: as `mmap`; `FileTooLarge` where the file does not fit the address space.
    pub fn of_sealed(file: &File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let len = usize::try_from(len).map_err(|_too_large| io::ErrorKind::FileTooLarge)?;
        if len == 0 {
            return Ok(Self { map: None });
        }
        let mut options = MmapOptions::new();
        options.len(len);
        // SAFETY: the file is sealed, so its bytes stay as they are and `&[u8]` of them is sound. What breaks that rule
        // is outside the process and as trusted as its executable.
        let map = unsafe { options.map(file) }?;
        Ok(Self { map: Some(map) })
    }
}

impl Deref for FileMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

impl AsRef<[u8]> for FileMap {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for FileMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileMap({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn shows_the_whole_file_and_outlives_the_descriptor() {
        let mut file = tempfile::tempfile().unwrap();
        assert!(FileMap::of_sealed(&file).unwrap().is_empty());
        let bytes: Vec<u8> = (0..=250).cycle().take(10_001).collect();
        file.write_all(&bytes).unwrap();
        let map = FileMap::of_sealed(&file).unwrap();
        drop(file);
        assert_eq!(*map, bytes);
    }
}
