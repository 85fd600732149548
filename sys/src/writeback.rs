//! Having the disk begin to write what a file has in the page cache.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Begins to write the dirty pages of a part of a file, and does not wait for them (`sync_file_range`).
///
/// - **Durable**: no: only a sync says so.
/// - **Errors**: the kernel's; numbers past the largest file are refused.
pub fn begin_writeback(file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    let too_far = |_far| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = i64::try_from(offset).map_err(too_far)?;
    let len = i64::try_from(len).map_err(too_far)?;
    // SAFETY: takes numbers and an open descriptor, which is borrowed for the call; touches no memory of this process.
    let done = unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE)
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed setup is a failed test")]
    use std::{fs::File, os::fd::AsFd};

    use super::*;

    #[test]
    fn writeback_of_a_file_begins_and_of_nonsense_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create_new(directory.path().join("file")).unwrap();
        io::Write::write_all(&mut &file, &[1; 8192]).unwrap();
        begin_writeback(file.as_fd(), 0, 8192).unwrap();
        let refused = begin_writeback(file.as_fd(), u64::MAX, 1).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        let (pipe, _other) = std::io::pipe().unwrap();
        let refused = begin_writeback(pipe.as_fd(), 0, 1).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ESPIPE));
    }
}
