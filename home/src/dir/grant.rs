//! The file `lease`: the numbers of an image's newest grant, and to whom it was made.
//!
//! ```text
//!   0    magic "SEGVMLSE"     24  fenced u64                52  process u32        508  CRC-32C of all before
//!   8    version u16 = 1      32  lock u64: 0, or n         56  zeros              512  text, 1,024 bytes
//!   10   zeros                40  since: seconds i64
//!   16   token u64            48  since: nanoseconds u32
//! ```
//!
//! The numbers lie in one sector, so that they are there or not. The text, which takes two, is a courtesy to those who
//! are refused and decides nothing: a torn one, and one of another grant, is ignored.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use segvm_blockcache::disk::{Disk, DiskFile, Open};

use super::frame::SECTOR;
use crate::{
    home::Holder,
    lease::{Grant, Token},
    time::Timestamp,
};

const MAGIC: [u8; 8] = *b"SEGVMLSE";
const VERSION: u16 = 1;
/// Where the checksum of the numbers is.
const CRC: usize = SECTOR - 4;
/// The text's length, always: so that writing it changes bytes and nothing else. Two texts of 255 bytes and the rest.
const TEXT: usize = 1024;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeaseRecord {
    pub(super) grant: Grant,
    pub(super) fenced: Token,
    /// Which lock the holder has: 0 is `lock`, any other `lock-<n>`.
    pub(super) lock: u64,
}

/// Why the file of an image's lease could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseFileError {
    /// The file system said no.
    #[error("cannot read or write the lease at {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Its bytes changed since they were written.
    #[error("{} is damaged: once no program has the image open, remove the file", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A later version of segvm wrote it.
    #[error("{} has format version {got}; this program reads version 1: use a newer segvm", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        got: u16,
    },
}

/// The open file.
#[derive(Clone, Debug)]
pub(super) struct LeaseFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

impl LeaseFile {
    /// Opens the file, making it where it is missing.
    pub(super) fn open(disk: &dyn Disk, dir: &Path) -> Result<Self, LeaseFileError> {
        let path = dir.join("lease");
        match disk.open(&path, Open::Create) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(LeaseFileError::Io { path, source }),
        }
    }

    /// Opens the file where there is one.
    pub(super) fn find(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, LeaseFileError> {
        let path = dir.join("lease");
        match disk.open(&path, Open::Read) {
            Ok(file) => Ok(Some(Self { path, file })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LeaseFileError::Io { path, source }),
        }
    }

    /// What it says; `None` where nothing was ever written, or no write ever reached the disk before the power went.
    pub(super) fn read(&self) -> Result<Option<LeaseRecord>, LeaseFileError> {
        let Some(mut record) = self.read_numbers()? else {
            return Ok(None);
        };
        // A courtesy: what cannot be read is not known.
        let mut text = vec![0; TEXT];
        let read = self.file.read_at(SECTOR as u64, &mut text);
        if let Some((host, program)) = read.ok().and_then(|()| known(&text, record.grant.token)) {
            record.grant.holder.host = host;
            record.grant.holder.program = program;
        }
        Ok(Some(record))
    }

    /// The same without host and program: what decides.
    pub(super) fn read_numbers(&self) -> Result<Option<LeaseRecord>, LeaseFileError> {
        let mut numbers = [0; SECTOR];
        match self.file.read_at(0, &mut numbers) {
            Ok(()) if numbers == [0; SECTOR] => Ok(None),
            Ok(()) => self.numbers(&numbers).map(Some),
            // It ends earlier.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(source) => Err(self.io(source)),
        }
    }

    /// What it says, where there was a grant.
    pub(super) fn read_granted(&self) -> Result<LeaseRecord, LeaseFileError> {
        self.read()?.ok_or_else(|| LeaseFileError::Damaged {
            path: self.path.clone(),
        })
    }

    /// Writes it, in place.
    ///
    /// Rejected: a new file and a rename, which made ext4 write the new file out at once: 4 ms in a resume.
    pub(super) fn write(&self, record: &LeaseRecord) -> Result<(), LeaseFileError> {
        self.file
            .write_at(0, &encode(record))
            .map_err(|source| self.io(source))
    }

    pub(super) fn sync(&self) -> Result<(), LeaseFileError> {
        self.file.sync().map_err(|source| self.io(source))
    }

    fn numbers(&self, bytes: &[u8; SECTOR]) -> Result<LeaseRecord, LeaseFileError> {
        let path = || self.path.clone();
        let damaged = || LeaseFileError::Damaged { path: path() };
        let (covered, crc) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
        if !bytes.starts_with(&MAGIC) || crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return Err(damaged());
        }
        let got = u16::from_le_bytes(field(bytes, 8).ok_or_else(damaged)?);
        if got != VERSION {
            return Err(LeaseFileError::Version { path: path(), got });
        }
        decode(bytes).ok_or_else(damaged)
    }

    fn io(&self, source: io::Error) -> LeaseFileError {
        LeaseFileError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

fn encode(record: &LeaseRecord) -> Vec<u8> {
    let Grant { token, holder } = &record.grant;
    let mut out = Vec::with_capacity(SECTOR + TEXT);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(&token.number().to_le_bytes());
    out.extend_from_slice(&record.fenced.number().to_le_bytes());
    out.extend_from_slice(&record.lock.to_le_bytes());
    out.extend_from_slice(&holder.since.secs().to_le_bytes());
    out.extend_from_slice(&holder.since.nanos().to_le_bytes());
    out.extend_from_slice(&holder.pid.to_le_bytes());
    out.resize(CRC, 0);
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    let text = format!(
        "token {token}\nhost {}\nprogram {}\n",
        line(&holder.host),
        line(&holder.program)
    );
    let checked = format!("{text}check {:08x}\n", crc32c::crc32c(text.as_bytes()));
    out.extend_from_slice(format!("{checked:<TEXT$}").as_bytes());
    // Characters are not bytes: the padding of a text that is not ASCII is cut to the length.
    out.truncate(SECTOR + TEXT);
    out
}

pub(super) fn decode(bytes: &[u8]) -> Option<LeaseRecord> {
    let number = |at| field(bytes, at).map(u64::from_le_bytes);
    let since = Timestamp::new(
        i64::from_le_bytes(field(bytes, 40)?),
        u32::from_le_bytes(field(bytes, 48)?),
    )?;
    let (token, fenced) = (Token::new(number(16)?), Token::new(number(24)?));
    let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let sound = zero(bytes.get(10..16)?) && zero(bytes.get(56..CRC)?);
    (sound && fenced < token).then_some(LeaseRecord {
        grant: Grant {
            token,
            holder: Holder {
                pid: u32::from_le_bytes(field(bytes, 52)?),
                host: "an unknown host".to_owned(),
                program: "an unknown program".to_owned(),
                since,
            },
        },
        fenced,
        lock: number(32)?,
    })
}

/// What fits in a line: at most 255 bytes, nothing that ends a line.
fn line(text: &str) -> String {
    let cut = text
        .get(..text.floor_char_boundary(255))
        .unwrap_or_default();
    cut.replace(|c: char| c.is_ascii_control(), " ")
}

/// Host and program, where the text is whole and of this grant.
fn known(text: &[u8], token: Token) -> Option<(String, String)> {
    let all = std::str::from_utf8(text.trim_ascii_end()).ok()?;
    let (text, check) = all.split_at(all.rfind("check ")?);
    let check = check.strip_prefix("check ")?;
    if check != format!("{:08x}", crc32c::crc32c(text.as_bytes())) {
        return None;
    }
    let mut lines = text.lines();
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let of = field("token")?.parse().ok().map(Token::new)?;
    let (host, program) = (field("host")?.to_owned(), field("program")?.to_owned());
    (of == token).then_some((host, program))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use segvm_blockcache::disk::MemDisk;

    use super::*;

    fn record() -> LeaseRecord {
        LeaseRecord {
            grant: Grant {
                token: Token::new(9),
                holder: Holder {
                    pid: 4711,
                    host: "a host".into(),
                    program: "codesearch".into(),
                    since: Timestamp::new(-5, 7).unwrap(),
                },
            },
            fenced: Token::new(8),
            lock: 9,
        }
    }

    fn file() -> LeaseFile {
        let (disk, dir) = (MemDisk::new(), Path::new("/d"));
        disk.create_dir_all(dir).unwrap();
        assert!(LeaseFile::find(&disk, dir).unwrap().is_none());
        LeaseFile::open(&disk, dir).unwrap()
    }

    #[test]
    fn a_grant_comes_back_as_it_went() {
        let file = file();
        assert_eq!(file.read().unwrap(), None);
        file.write(&record()).unwrap();
        assert_eq!(file.read().unwrap(), Some(record()));
        let mut hostile = record();
        hostile.grant.holder.host = "a host\nwith a line".into();
        hostile.grant.holder.program = "é".repeat(200);
        file.write(&hostile).unwrap();
        let found = file.read().unwrap().unwrap().grant.holder;
        assert_eq!(found.host, "a host with a line");
        assert_eq!(found.program, "é".repeat(127));
        assert_eq!(encode(&hostile).len(), encode(&record()).len());
    }

    #[test]
    fn a_flipped_bit_is_damage_in_the_numbers_and_silence_in_the_text() {
        let file = file();
        let whole = encode(&record());
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            file.file.write_at(0, &bytes).unwrap();
            match file.read() {
                Err(LeaseFileError::Damaged { path }) => {
                    assert!(bit / 8 < SECTOR && path == Path::new("/d/lease"));
                }
                Ok(Some(found)) => {
                    assert!(bit / 8 >= SECTOR, "bit {bit} went unnoticed");
                    assert_eq!(found.grant.token, record().grant.token);
                    let program = found.grant.holder.program;
                    assert!(program == "codesearch" || program == "an unknown program");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_text_of_another_grant_is_not_believed() {
        let file = file();
        let mut later = record();
        later.grant.token = Token::new(10);
        file.write(&later).unwrap();
        // The power went between the sectors.
        file.file
            .write_at(0, encode(&record()).get(..SECTOR).unwrap())
            .unwrap();
        let found = file.read().unwrap().unwrap().grant;
        assert_eq!((found.token, found.holder.pid), (Token::new(9), 4711));
        assert_eq!(found.holder.program, "an unknown program");
    }

    #[test]
    fn a_file_from_the_future_is_named() {
        let file = file();
        let mut bytes = encode(&record());
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..CRC]).to_le_bytes();
        bytes[CRC..SECTOR].copy_from_slice(&crc);
        file.file.write_at(0, &bytes).unwrap();
        assert!(matches!(
            file.read(),
            Err(LeaseFileError::Version { got: 2, .. })
        ));
    }
}
