//! Bytes that may be a commit: nothing in them is believed before it was checked.

use std::collections::BTreeMap;

use segvm_blockcache::{BlockSize, CommitId, TreeId};

use super::{
    ATTRIBUTE_MAX, ATTRIBUTES_MAX, COMMIT_MAX, Commit, InvalidCommit, MAGIC, PARENTS_MAX,
    RANGES_MAX, RangeAttribute, RangeKind, SEGMENTS_MAX, SegmentKind, SegmentRecord, VERSION,
    encode::check,
};
use crate::time::Timestamp;

/// Why bytes are not a commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// They do not begin as a commit does.
    #[error("not a commit: it begins with other bytes")]
    Magic,
    /// A later version of segvm made it.
    #[error(
        "a commit of format version {got}; this program reads version {VERSION}: use a newer segvm"
    )]
    Version {
        /// The version.
        got: u16,
    },
    /// They end too early.
    #[error("the commit ends at byte {at}, in the middle of {what}")]
    Truncated {
        /// Where.
        at: usize,
        /// In what.
        what: &'static str,
    },
    /// They do not end where the commit does.
    #[error("{count} bytes follow the commit's end")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// A number that means nothing, or bytes that must be zero or text and are not.
    #[error("at byte {at}: no valid {what}")]
    Meaningless {
        /// Where the bytes after it begin.
        at: usize,
        /// What it should be.
        what: &'static str,
    },
    /// A limit or an order is broken.
    #[error(transparent)]
    Invalid(#[from] InvalidCommit),
}

pub(super) fn commit(bytes: &[u8]) -> Result<Commit, DecodeError> {
    if bytes.len() > COMMIT_MAX {
        return Err(too_much("bytes of a commit", bytes.len(), COMMIT_MAX));
    }
    let mut cursor = Cursor { bytes, at: 0 };
    let c = &mut cursor;
    if c.array("the magic")? != MAGIC {
        return Err(DecodeError::Magic);
    }
    match u16::from_le_bytes(c.array("the version")?) {
        VERSION => {}
        got => return Err(DecodeError::Version { got }),
    }
    let [page_size_log2, pointer_width] = c.array("the machine")?;
    let parents = c.count("parents", PARENTS_MAX)?;
    let generation = c.u64("the generation")?;
    let secs = i64::from_le_bytes(c.array("the time")?);
    let time = Timestamp::new(secs, c.u32("the time")?).ok_or(c.meaningless("time"))?;
    let segments = c.count("segments", SEGMENTS_MAX)?;
    let attributes = c.count("attributes", ATTRIBUTES_MAX)?;
    c.zeros::<4>()?;
    let parents = c.repeat(parents, |c| c.array("a parent").map(CommitId::from_bytes))?;
    let host = c.text("the host's name")?;
    let program = c.text("the program's name")?;
    let segments = c.repeat(segments, segment)?;
    let attributes = self::attributes(c, attributes)?;
    if c.at != bytes.len() {
        let count = bytes.len() - c.at;
        return Err(DecodeError::Trailing { count });
    }
    let commit = Commit {
        parents,
        time,
        host,
        program,
        generation,
        page_size_log2,
        pointer_width,
        segments,
        attributes,
    };
    check(&commit)?;
    Ok(commit)
}

fn segment(c: &mut Cursor<'_>) -> Result<SegmentRecord, DecodeError> {
    let name = c.text("a segment's name")?;
    let tree = TreeId::from_bytes(c.array("a tree id")?);
    let fingerprint = c.array("a fingerprint")?;
    let len = c.u64("a segment's length")?;
    let base = c.u64("a segment's base")?;
    let reserved = c.u64("a segment's reservation")?;
    let [log2, kind] = c.array("a segment's kind")?;
    let block_size = BlockSize::from_log2(log2.into()).ok_or(c.meaningless("block size"))?;
    let kind = match kind {
        0 => SegmentKind::Raw,
        1 => SegmentKind::Heap,
        _ => return Err(c.meaningless("kind of a segment")),
    };
    c.zeros::<2>()?;
    let ranges = c.count("ranges of a segment", RANGES_MAX)?;
    let ranges = c.repeat(ranges, range)?;
    Ok(SegmentRecord {
        name,
        tree,
        len,
        block_size,
        base,
        reserved,
        kind,
        fingerprint,
        ranges,
    })
}

fn range(c: &mut Cursor<'_>) -> Result<RangeAttribute, DecodeError> {
    let (start, len) = (c.u64("a range")?, c.u64("a range")?);
    let kind = match c.array("a range's kind")? {
        [1] => RangeKind::Drop,
        [2] => RangeKind::Wipe,
        [3] => RangeKind::Regenerate,
        _ => return Err(c.meaningless("kind of a range")),
    };
    c.zeros::<7>()?;
    Ok(RangeAttribute { start, len, kind })
}

fn attributes(c: &mut Cursor<'_>, count: usize) -> Result<BTreeMap<String, Vec<u8>>, DecodeError> {
    let mut out = BTreeMap::new();
    for _ in 0..count {
        let key = c.text("an attribute's key")?;
        if out.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(InvalidCommit::Unordered { what: "attributes" }.into());
        }
        let len = c.count("bytes of an attribute", ATTRIBUTE_MAX)?;
        out.insert(key, c.take(len, "an attribute")?.to_vec());
    }
    Ok(out)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(taken) = rest.get(..len) else {
            let at = self.bytes.len();
            return Err(DecodeError::Truncated { at, what });
        };
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn count(&mut self, what: &'static str, max: usize) -> Result<usize, DecodeError> {
        let got = usize::try_from(self.u32(what)?).unwrap_or(usize::MAX);
        if got > max {
            return Err(too_much(what, got, max));
        }
        Ok(got)
    }

    fn text(&mut self, what: &'static str) -> Result<String, DecodeError> {
        let [len] = self.array(what)?;
        let bytes = self.take(len.into(), what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_not_text) => Err(self.meaningless("UTF-8 text")),
        }
    }

    fn zeros<const N: usize>(&mut self) -> Result<(), DecodeError> {
        match self.array::<N>("padding")? {
            bytes if bytes == [0; N] => Ok(()),
            _ => Err(self.meaningless("padding, which is zero")),
        }
    }

    /// Nothing is set aside for `count`: each item takes bytes, of which there are only so many.
    fn repeat<T>(
        &mut self,
        count: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let mut out = Vec::new();
        for _ in 0..count {
            out.push(item(self)?);
        }
        Ok(out)
    }

    fn meaningless(&self, what: &'static str) -> DecodeError {
        DecodeError::Meaningless { at: self.at, what }
    }
}

fn too_much(what: &'static str, got: usize, max: usize) -> DecodeError {
    InvalidCommit::TooMuch { what, got, max }.into()
}
