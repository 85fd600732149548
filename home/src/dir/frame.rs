//! One record of a log, as bytes.
//!
//! ```text
//!   0   magic "SEGVMREC"            24  sequence number u64        48      mark
//!   8   version u16 = 1             32  offset of this frame u64   ..      commit
//!   10  length of the mark u16      40  length of the frame        ..      attachments
//!   12  length of the commit u32        before, u32; 0: none       ..      zeros
//!   16  length of the attachments   44  zero u32                   n - 12  n u32
//!   20  n: the frame's length                                      n - 8   magic "GREC"
//!                                                                 n - 4   CRC-32C of all before
//! ```
//!
//! Attachments are items one behind the other: kind u16, length u16, bytes. Kind 1, 8 bytes: the fencing token.
//!
//! A frame is a multiple of 512 bytes at a multiple of 512: the last one is found from the end, because its last
//! sector is not zero and says how long the frame is. It states its own offset, so that a copy of one elsewhere
//! (in a commit's attributes, say) is none.

use segvm_blockcache::CommitId;

use crate::{
    commit::{COMMIT_MAX, Commit, DecodeError},
    home::Record,
    lease::Token,
};

/// What a disk writes in one piece; frames begin and end at multiples of it.
pub(super) const SECTOR: usize = 512;
/// The longest mark, in bytes.
pub const MARK_MAX: usize = 256;
const ATTACHMENTS_MAX: usize = 1 << 16;
/// The kind of the attachment that is the fencing token.
const TOKEN: u16 = 1;
const TOKEN_LEN: u16 = 8;
/// Kind, length, token.
const ATTACHED: usize = 4 + TOKEN_LEN as usize;
const HEADER: usize = 48;
/// Length, magic, checksum.
const TRAILER: usize = 12;
const CRC: usize = 4;
/// The longest frame there can be.
pub(super) const FRAME_MAX: usize =
    (HEADER + MARK_MAX + COMMIT_MAX + ATTACHMENTS_MAX + TRAILER).next_multiple_of(SECTOR);

const MAGIC: [u8; 8] = *b"SEGVMREC";
const END_MAGIC: [u8; 4] = *b"GREC";
const VERSION: u16 = 1;

/// A frame that was found whole.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) offset: u64,
    pub(super) len: u32,
    /// The length of the one before; 0 where there is none.
    pub(super) previous: u32,
    pub(super) record: Record,
}

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameFault {
    /// They do not begin or end as one.
    #[error("it does not begin and end as a record")]
    Shape,
    /// The checksum says that they changed.
    #[error("its checksum does not match")]
    Checksum,
    /// The frame is whole, and was written for another place.
    #[error("it was written for offset {0}")]
    Misplaced(u64),
    /// A later version of segvm wrote it.
    #[error("its format version is {0}; this program reads version 1: use a newer segvm")]
    Version(u16),
    /// Its lengths or its padding make no sense although the checksum matches.
    #[error("its lengths do not add up, or its padding is not zero")]
    Lengths,
    /// What is attached to it makes no sense although the checksum matches.
    #[error("what is attached to it makes no sense")]
    Attachments,
    /// Its commit makes no sense although the checksum matches.
    #[error("its commit: {0}")]
    Commit(#[from] DecodeError),
    /// It does not follow the record before it.
    #[error("its number is {got} where {wanted} should be")]
    Sequence {
        /// Its number.
        got: u64,
        /// What should be there.
        wanted: u64,
    },
}

/// What a frame is made of besides its lengths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub(super) seq: u64,
    pub(super) offset: u64,
    /// The length of the frame before; 0 exactly where `seq` is 0.
    pub(super) previous: u32,
    /// At most [`MARK_MAX`] bytes: the caller checked.
    pub(super) mark: &'a [u8],
    /// An encoded commit, which is within its limit.
    pub(super) commit: &'a [u8],
    pub(super) token: Token,
}

pub(super) fn encode(parts: Parts<'_>) -> Vec<u8> {
    let Parts { mark, commit, .. } = parts;
    debug_assert!(mark.len() <= MARK_MAX && commit.len() <= COMMIT_MAX);
    let len = (HEADER + mark.len() + commit.len() + ATTACHED + TRAILER).next_multiple_of(SECTOR);
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&u16::try_from(mark.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(&length(commit.len()));
    out.extend_from_slice(&length(ATTACHED));
    out.extend_from_slice(&length(len));
    out.extend_from_slice(&parts.seq.to_le_bytes());
    out.extend_from_slice(&parts.offset.to_le_bytes());
    out.extend_from_slice(&parts.previous.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(mark);
    out.extend_from_slice(commit);
    out.extend_from_slice(&TOKEN.to_le_bytes());
    out.extend_from_slice(&TOKEN_LEN.to_le_bytes());
    out.extend_from_slice(&parts.token.number().to_le_bytes());
    out.resize(len - TRAILER, 0);
    out.extend_from_slice(&length(len));
    out.extend_from_slice(&END_MAGIC);
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    out
}

fn length(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes()
}

/// The length of the frame that ends with `sector`, if one seems to.
pub(super) fn length_from_end(sector: &[u8]) -> Option<usize> {
    let trailer = sector.get(sector.len().checked_sub(TRAILER)?..)?;
    let (len, magic) = (number(trailer, 0)?, trailer.get(4..8)?);
    let plausible = magic == END_MAGIC && (SECTOR..=FRAME_MAX).contains(&len);
    (plausible && len.is_multiple_of(SECTOR)).then_some(len)
}

/// Decodes the frame that is exactly `bytes` and lies at `offset`.
pub(super) fn decode(bytes: &[u8], offset: u64) -> Result<Frame, FrameFault> {
    let (covered, crc) = bytes.split_last_chunk::<CRC>().ok_or(FrameFault::Shape)?;
    if !bytes.starts_with(&MAGIC) || length_from_end(bytes) != Some(bytes.len()) {
        return Err(FrameFault::Shape);
    }
    if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
        return Err(FrameFault::Checksum);
    }
    match number16(bytes, 8) {
        Some(VERSION) => {}
        other => return Err(FrameFault::Version(other.unwrap_or_default())),
    }
    let field = |at| number64(bytes, at).ok_or(FrameFault::Lengths);
    let (seq, place) = (field(24)?, field(32)?);
    if place != offset {
        return Err(FrameFault::Misplaced(place));
    }
    let (mark, commit, attached) = parts(bytes).ok_or(FrameFault::Lengths)?;
    let token = token(attached).ok_or(FrameFault::Attachments)?;
    let previous = number(bytes, 40).ok_or(FrameFault::Lengths)?;
    if !previous.is_multiple_of(SECTOR) || previous > FRAME_MAX || (previous == 0) != (seq == 0) {
        return Err(FrameFault::Lengths);
    }
    Ok(Frame {
        offset,
        len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        previous: u32::try_from(previous).unwrap_or(u32::MAX),
        record: Record {
            seq,
            commit_id: CommitId::of(commit),
            commit: Commit::decode(commit)?,
            mark: mark.to_vec(),
            token,
        },
    })
}

/// The token among what is attached: none in what was written before there were any. Other kinds are passed over.
fn token(mut attached: &[u8]) -> Option<Token> {
    let mut found = Token::NONE;
    while !attached.is_empty() {
        let (kind, len) = (number16(attached, 0)?, number16(attached, 2)?);
        let (item, rest) = attached.get(4..)?.split_at_checked(len.into())?;
        if kind == TOKEN {
            found = Token::new(u64::from_le_bytes(item.try_into().ok()?));
        }
        attached = rest;
    }
    Some(found)
}

/// Mark, commit and attachments, where all lengths add up and all that is left is zero.
fn parts(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mark_len = usize::from(number16(bytes, 10)?);
    let (commit_len, attachments) = (number(bytes, 12)?, number(bytes, 16)?);
    if mark_len > MARK_MAX || commit_len > COMMIT_MAX || attachments > ATTACHMENTS_MAX {
        return None;
    }
    let (mark, rest) = bytes.get(HEADER..)?.split_at_checked(mark_len)?;
    let (commit, rest) = rest.split_at_checked(commit_len)?;
    // Attachments are not part of the commit's identity.
    let (attached, rest) = rest.split_at_checked(attachments)?;
    let padding = rest.get(..rest.len().checked_sub(TRAILER)?)?;
    let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let sound = number(bytes, 20)? == bytes.len() && zero(bytes.get(44..HEADER)?) && zero(padding);
    (sound && padding.len() < SECTOR).then_some((mark, commit, attached))
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let value = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
    usize::try_from(value).ok()
}

fn number64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(attribute: &[u8]) -> Vec<u8> {
        let mut commit = Commit {
            page_size_log2: 12,
            pointer_width: 8,
            ..Commit::default()
        };
        commit.attributes.insert("a".into(), attribute.to_vec());
        commit.encode().unwrap()
    }

    fn encode(seq: u64, offset: u64, previous: u32, mark: &[u8], commit: &[u8]) -> Vec<u8> {
        super::encode(Parts {
            seq,
            offset,
            previous,
            mark,
            commit,
            token: Token::new(7),
        })
    }

    #[test]
    fn a_frame_comes_back_at_its_own_place_only() {
        for len in 0..1200 {
            let (bytes, mark) = (commit(&vec![7; len]), vec![9; len % (MARK_MAX + 1)]);
            let encoded = encode(3, 4096, 512, &mark, &bytes);
            assert!(encoded.len().is_multiple_of(SECTOR), "{len}");
            assert_eq!(length_from_end(&encoded), Some(encoded.len()));
            let frame = decode(&encoded, 4096).unwrap();
            let record = &frame.record;
            assert_eq!((record.seq, frame.offset, frame.previous), (3, 4096, 512));
            assert_eq!(record.token, Token::new(7));
            assert_eq!(
                (&record.mark, record.commit_id),
                (&mark, CommitId::of(&bytes))
            );
            assert_eq!(
                decode(&encoded, 512).unwrap_err(),
                FrameFault::Misplaced(4096)
            );
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let encoded = encode(0, 0, 0, b"mark", &commit(b"value"));
        for bit in 0..encoded.len() * 8 {
            let mut bytes = encoded.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes, 0).is_err(), "bit {bit}");
        }
        for len in 0..encoded.len() {
            assert!(decode(&encoded[..len], 0).is_err(), "cut at {len}");
        }
    }

    /// Changes bytes and makes the checksum match again.
    fn altered(frame: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
        let mut bytes = frame.to_vec();
        bytes[at..at + new.len()].copy_from_slice(new);
        let end = bytes.len() - CRC;
        let crc = crc32c::crc32c(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&crc);
        bytes
    }

    #[test]
    fn a_checksum_alone_makes_no_frame() {
        let encoded = encode(1, 512, 512, b"mark", &commit(b"value"));
        let fault = |at, new: &[u8]| decode(&altered(&encoded, at, new), 512).unwrap_err();
        assert_eq!(fault(8, &[2]), FrameFault::Version(2));
        for (at, new) in [
            (10, &[0xff, 0xff][..]),
            (12, &[0xff; 4]),
            (16, &[0xff; 4]),
            (20, &[0, 4]),
            (40, &[0; 4]),
            (40, &[1]),
            (44, &[1]),
            (480, &[1]),
        ] {
            assert_eq!(fault(at, new), FrameFault::Lengths, "byte {at}");
        }
        assert!(matches!(fault(52, b"X"), FrameFault::Commit(_)));
    }

    #[test]
    fn attachments_of_a_later_writer_are_passed_over() {
        let bytes = commit(b"value");
        let encoded = encode(0, 0, 0, b"mark", &bytes);
        let end = HEADER + 4 + bytes.len() + ATTACHED;
        let with = |item: &[u8]| {
            let len = u8::try_from(ATTACHED + item.len()).unwrap();
            decode(&altered(&altered(&encoded, end, item), 16, &[len]), 0)
        };
        let signed = with(b"\x02\x00\x09\x00signature").unwrap();
        assert_eq!(signed.record, decode(&encoded, 0).unwrap().record);
        for bad in [
            &b"\x02\x00\x0a\x00signature"[..],
            b"\x02\x00\x00",
            b"\x01\x00\x01\x00x",
        ] {
            assert_eq!(with(bad).unwrap_err(), FrameFault::Attachments);
        }
    }
}
