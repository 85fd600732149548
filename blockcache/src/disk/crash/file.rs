//! An open file of a crashing disk.

use std::{
    fmt, io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use rustix::io::Errno;
use segvm_os::Mappable;

use super::{
    super::{DiskFile, PageCache},
    CrashDisk, NO_POWER, State, Verdict,
    names::Ino,
};

pub(super) struct CrashFile {
    disk: CrashDisk,
    path: PathBuf,
    ino: Ino,
    writable: bool,
}

impl CrashFile {
    pub(super) fn new(disk: &CrashDisk, path: &Path, ino: Ino, writable: bool) -> Self {
        Self {
            disk: disk.clone(),
            path: path.to_owned(),
            ino,
            writable,
        }
    }

    fn need_writable(&self) -> io::Result<()> {
        if self.writable {
            Ok(())
        } else {
            Err(Errno::BADF.into())
        }
    }
}

impl State {
    /// How much of a write of `len` bytes is done, and what it answers.
    fn share(&mut self, len: usize) -> io::Result<(usize, Result<(), Errno>)> {
        let (done, answer) = match self.begin()? {
            Verdict::Works => (len, Ok(())),
            Verdict::Fails(errno) => (self.dice.below(len + 1), Err(errno)),
            Verdict::Cut => (len, Err(NO_POWER)),
        };
        match &mut self.faults.room {
            Some(room) if *room < done => Ok((std::mem::take(room), answer.and(Err(Errno::NOSPC)))),
            Some(room) => {
                *room -= done;
                Ok((done, answer))
            }
            None => Ok((done, answer)),
        }
    }
}

impl Mappable for CrashFile {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.powered()?;
        let end = offset.saturating_add(buf.len() as u64);
        let bad = |(ino, range): &(Ino, std::ops::Range<u64>)| {
            *ino == self.ino && range.start < end && offset < range.end
        };
        if state.faults.reads.iter().any(bad) {
            return Err(Errno::IO.into());
        }
        state.inode(self.ino)?.read(offset, buf)
    }
}

impl DiskFile for CrashFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state.lock();
        state.powered()?;
        Ok(state.inode(self.ino)?.len() as u64)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.need_writable()?;
        if bytes.is_empty() {
            return Ok(());
        }
        let mut state = self.disk.state.lock();
        let (done, answer) = state.share(bytes.len())?;
        if let Some(written @ [_, ..]) = bytes.get(..done) {
            state.inode(self.ino)?.write(offset, written)?;
        }
        Ok(answer?)
    }

    fn page_cache(&self, _how: PageCache) -> bool {
        false
    }

    fn preallocate(&self, _offset: u64, len: u64) -> io::Result<()> {
        self.need_writable()?;
        let mut state = self.disk.state.lock();
        match state.begin()? {
            Verdict::Works if state.faults.room.is_some_and(|room| (room as u64) < len) => {
                Err(Errno::NOSPC.into())
            }
            Verdict::Works => Ok(()),
            Verdict::Fails(errno) => Err(errno.into()),
            Verdict::Cut => Err(NO_POWER.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.need_writable()?;
        let len = usize::try_from(len).map_err(|_huge| Errno::FBIG)?;
        let mut state = self.disk.state.lock();
        let answer = match state.begin()? {
            Verdict::Works => Ok(()),
            Verdict::Fails(errno) => return Err(errno.into()),
            Verdict::Cut => Err(NO_POWER.into()),
        };
        state.inode(self.ino)?.set_len(len);
        answer
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let verdict = state.begin()?;
        let State { inodes, dice, .. } = &mut *state;
        let inode = inodes.get_mut(self.ino).ok_or(Errno::STALE)?;
        match verdict {
            Verdict::Works => {
                inode.sync();
                Ok(())
            }
            Verdict::Fails(errno) => {
                let luck = dice.luck();
                inode.sync_and_lose(dice, luck);
                Err(errno.into())
            }
            // What is pending may reach the disk or not, as before.
            Verdict::Cut => Err(NO_POWER.into()),
        }
    }

    fn as_mappable(&self) -> &dyn Mappable {
        self
    }
}

impl fmt::Debug for CrashFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CrashFile({})", self.path.display())
    }
}
