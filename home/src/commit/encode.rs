//! A commit's bytes, and what makes a commit that has none.

use super::{
    ATTRIBUTE_MAX, ATTRIBUTES_MAX, COMMIT_MAX, Commit, MAGIC, PARENTS_MAX, RANGES_MAX,
    RangeAttribute, SEGMENTS_MAX, SegmentRecord, TEXT_MAX, VERSION,
};

/// Why a commit cannot be encoded, or bytes that look like one are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCommit {
    /// Something is longer than the format allows.
    #[error("{what}: {got} is more than {max}")]
    TooMuch {
        /// What.
        what: &'static str,
        /// How much there is.
        got: usize,
        /// How much there may be.
        max: usize,
    },
    /// A name has no bytes.
    #[error("{what} has no name")]
    Nameless {
        /// What.
        what: &'static str,
    },
    /// Names or ranges do not ascend.
    #[error("{what} are not in ascending order, each once")]
    Unordered {
        /// What.
        what: &'static str,
    },
    /// A segment's length, reservation, base or ranges do not go together.
    #[error(
        "segment {name:?}: its length or a range lies outside its reservation, or the latter outside memory"
    )]
    Bounds {
        /// The segment.
        name: String,
    },
    /// The page size is not one of 4 to 64 KiB, or the pointer width not 4 or 8.
    #[error(
        "pages of 2^{page_size_log2} bytes and pointers of {pointer_width} bytes: no such machine"
    )]
    Machine {
        /// Base-2 logarithm of the page size.
        page_size_log2: u8,
        /// Bytes in a pointer.
        pointer_width: u8,
    },
}

pub(super) fn commit(commit: &Commit) -> Result<Vec<u8>, InvalidCommit> {
    check(commit)?;
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.push(commit.page_size_log2);
    out.push(commit.pointer_width);
    count(&mut out, "parents", commit.parents.len(), PARENTS_MAX)?;
    out.extend_from_slice(&commit.generation.to_le_bytes());
    out.extend_from_slice(&commit.time.secs().to_le_bytes());
    out.extend_from_slice(&commit.time.nanos().to_le_bytes());
    count(&mut out, "segments", commit.segments.len(), SEGMENTS_MAX)?;
    count(
        &mut out,
        "attributes",
        commit.attributes.len(),
        ATTRIBUTES_MAX,
    )?;
    out.extend_from_slice(&[0; 4]);
    for parent in &commit.parents {
        out.extend_from_slice(parent.as_bytes());
    }
    text(&mut out, "the host's name", &commit.host)?;
    text(&mut out, "the program's name", &commit.program)?;
    for record in &commit.segments {
        segment(&mut out, record)?;
    }
    for (key, value) in &commit.attributes {
        text(&mut out, "an attribute's key", key)?;
        count(
            &mut out,
            "bytes of an attribute",
            value.len(),
            ATTRIBUTE_MAX,
        )?;
        out.extend_from_slice(value);
    }
    match out.len() {
        len if len > COMMIT_MAX => Err(too_much("bytes of a commit", len, COMMIT_MAX)),
        _ => Ok(out),
    }
}

fn segment(out: &mut Vec<u8>, segment: &SegmentRecord) -> Result<(), InvalidCommit> {
    text(out, "a segment's name", &segment.name)?;
    out.extend_from_slice(segment.tree.as_bytes());
    out.extend_from_slice(&segment.fingerprint);
    for number in [segment.len, segment.base, segment.reserved] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.push(segment.block_size.log2());
    out.push(segment.kind.code());
    out.extend_from_slice(&[0; 2]);
    count(out, "ranges of a segment", segment.ranges.len(), RANGES_MAX)?;
    for range in &segment.ranges {
        out.extend_from_slice(&range.start.to_le_bytes());
        out.extend_from_slice(&range.len.to_le_bytes());
        out.push(range.kind.code());
        out.extend_from_slice(&[0; 7]);
    }
    Ok(())
}

/// What both directions demand: orders and bounds. Lengths are checked where they are written and read.
pub(super) fn check(commit: &Commit) -> Result<(), InvalidCommit> {
    let &Commit {
        page_size_log2,
        pointer_width,
        ..
    } = commit;
    if !(12..=16).contains(&page_size_log2) || !matches!(pointer_width, 4 | 8) {
        return Err(InvalidCommit::Machine {
            page_size_log2,
            pointer_width,
        });
    }
    if !commit.segments.is_sorted_by(|a, b| a.name < b.name) {
        return Err(InvalidCommit::Unordered { what: "segments" });
    }
    if commit.attributes.contains_key("") {
        return Err(InvalidCommit::Nameless {
            what: "an attribute",
        });
    }
    for segment in &commit.segments {
        if segment.name.is_empty() {
            return Err(InvalidCommit::Nameless { what: "a segment" });
        }
        if !in_bounds(segment) {
            return Err(InvalidCommit::Bounds {
                name: segment.name.clone(),
            });
        }
        let follows = |a: &RangeAttribute, b: &RangeAttribute| a.start + a.len <= b.start;
        if !segment.ranges.is_sorted_by(follows) {
            return Err(InvalidCommit::Unordered { what: "ranges" });
        }
    }
    Ok(())
}

fn in_bounds(segment: &SegmentRecord) -> bool {
    let inside = |range: &RangeAttribute| {
        let end = range.start.checked_add(range.len);
        range.len > 0 && end.is_some_and(|end| end <= segment.reserved)
    };
    segment.len <= segment.reserved
        && segment.base.checked_add(segment.reserved).is_some()
        && segment.ranges.iter().all(inside)
}

fn text(out: &mut Vec<u8>, what: &'static str, text: &str) -> Result<(), InvalidCommit> {
    match u8::try_from(text.len()) {
        Ok(len) => out.push(len),
        Err(_more) => return Err(too_much(what, text.len(), TEXT_MAX)),
    }
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn count(out: &mut Vec<u8>, what: &'static str, n: usize, max: usize) -> Result<(), InvalidCommit> {
    match u32::try_from(n) {
        Ok(n32) if n <= max => out.extend_from_slice(&n32.to_le_bytes()),
        _ => return Err(too_much(what, n, max)),
    }
    Ok(())
}

fn too_much(what: &'static str, got: usize, max: usize) -> InvalidCommit {
    InvalidCommit::TooMuch { what, got, max }
}
