//! Exit codes: scripts tell by them what to do next.

use std::process::ExitCode;

/// Why the command ended as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Done.
    Success,
    /// The command line, or an image that is not what the command needs. clap exits with the same.
    Usage,
    /// There is no such store, image, commit, tag or segment.
    Absent,
    /// Bytes are not what they must be, or a check found such bytes.
    Corrupt,
    /// Somebody else has the image or the store, or went on without us.
    Fenced,
    /// The system said no.
    Io,
    /// No room on the disk, no memory, or a limit of the format.
    Limit,
}

impl Code {
    /// Its name in `--json`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Usage => "usage",
            Self::Absent => "absent",
            Self::Corrupt => "corrupt",
            Self::Fenced => "fenced",
            Self::Io => "io",
            Self::Limit => "limit",
        }
    }

    /// What the process exits with. 1 is left out: shells and panics use it for anything.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Usage => 2,
            Self::Absent => 3,
            Self::Corrupt => 4,
            Self::Fenced => 5,
            Self::Io => 6,
            Self::Limit => 7,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.number())
    }
}

/// The table in `segvm --help`.
pub(crate) const TABLE: &str = "\
Exit codes:
  0  done
  2  usage: the command line, or the image is not what the command needs
  3  absent: no such store, image, commit, tag or segment
  4  corrupt: bytes are not what they must be, or `fsck` found harm
  5  fenced: somebody else has the image or the store open, or went on without us
  6  io: the system said no
  7  limit: the disk is full, no memory, or more than the format allows";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_code() {
        for code in [
            Code::Usage,
            Code::Absent,
            Code::Corrupt,
            Code::Fenced,
            Code::Io,
            Code::Limit,
        ] {
            let line = format!("\n  {}  {}: ", code.number(), code.name());
            assert!(TABLE.contains(&line), "{line}");
        }
    }
}
