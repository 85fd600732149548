//! Section 1: numbers, checksums and ids, and what a reader says when a rule is broken.

use std::{fmt, fs::File, io, os::unix::fs::FileExt, path::Path};

pub(crate) const PAGE: u64 = 4096;

pub(crate) type Id = [u8; 32];

/// Zeros in an id's place: nothing is stored.
pub(crate) const HOLE: Id = [0; 32];

/// Which rule was broken, and where in the thing that was read.
#[derive(Debug)]
pub(crate) enum Wrong {
    Broken(&'static str, u64),
    /// No pack that counts has it.
    Absent(&'static str, Id),
    Io(io::Error),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(rule, at) => write!(f, "{rule}, at {at}"),
            Self::Absent(kind, id) => write!(f, "{kind} {} is not here", text(id)),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(crate) type Read<T> = Result<T, Wrong>;

pub(crate) fn rule(kept: bool, rule: &'static str, at: u64) -> Read<()> {
    if kept {
        Ok(())
    } else {
        Err(Wrong::Broken(rule, at))
    }
}

/// Bytes read from front to back.
pub(crate) struct Bytes<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    pub(crate) fn new(all: &'a [u8]) -> Self {
        Self { all, at: 0 }
    }

    pub(crate) fn at(&self) -> u64 {
        self.at as u64
    }

    pub(crate) fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let rest = &self.all[self.at..];
        rule(len <= rest.len(), "cut short", self.at())?;
        self.at += len;
        Ok(&rest[..len])
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Read<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn id(&mut self) -> Read<Id> {
        self.array()
    }

    pub(crate) fn says(&mut self, what: &[u8], name: &'static str) -> Read<()> {
        let at = self.at();
        rule(self.take(what.len())? == what, name, at)
    }

    pub(crate) fn zeros(&mut self, len: usize) -> Read<()> {
        let at = self.at();
        rule(is_zero(self.take(len)?), "not zero", at)
    }

    pub(crate) fn zeros_to(&mut self, end: usize) -> Read<()> {
        rule(self.at <= end, "fields end too late", self.at())?;
        self.zeros(end - self.at)
    }

    pub(crate) fn end(&self) -> Read<()> {
        rule(self.at == self.all.len(), "bytes follow the end", self.at())
    }
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// CRC-32C, a bit at a time but for a table of bytes.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut value = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                // 1EDC6F41 reflected.
                value = (value >> 1) ^ (0x82f6_3b78 * (value & 1));
                bit += 1;
            }
            table[byte] = value;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)]
    })
}

#[test]
fn the_checksum_is_the_one_that_the_format_means() {
    assert_eq!(crc(b"123456789"), 0xe306_9283);
}

pub(crate) fn block_id(bytes: &[u8]) -> Id {
    blake3::derive_key("segvm 2026-11 block v1", bytes)
}

pub(crate) fn node_id(bytes: &[u8]) -> Id {
    blake3::derive_key("segvm 2026-11 node v1", bytes)
}

pub(crate) fn commit_id(bytes: &[u8]) -> Id {
    blake3::derive_key("segvm 2026-11 commit v1", bytes)
}

pub(crate) fn text(id: &Id) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file, read at offsets.
#[derive(Debug)]
pub(crate) struct Input {
    file: File,
    pub(crate) len: u64,
}

impl Input {
    pub(crate) fn open(path: &Path) -> Read<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }

    pub(crate) fn read(&self, at: u64, len: u64) -> Read<Vec<u8>> {
        let within = at.checked_add(len).is_some_and(|end| end <= self.len);
        rule(within, "beyond the file's end", at)?;
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}
