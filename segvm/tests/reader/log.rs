//! Section 7: an image's log, from its newest record backwards.

use std::{fs, path::Path};

use super::bytes::{Bytes, Read, crc, is_zero, rule};

const SECTOR: usize = 512;
const LONGEST: usize = 1_114_624;

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) sequence: u64,
    pub(crate) marks: Vec<u8>,
    pub(crate) commit: Vec<u8>,
    /// The fencing token; 0 where there is none.
    pub(crate) token: u64,
    offset: usize,
    before: usize,
}

/// 7.1: what an image may be called.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
    (1..=64).contains(&name.len()) && name.chars().all(allowed) && !name.starts_with('.')
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// The whole frame that ends at `end`, if one does.
fn whole(log: &[u8], end: usize) -> Option<&[u8]> {
    if end < SECTOR || &log[end - 8..end - 4] != b"GREC" {
        return None;
    }
    let len = u32_at(log, end - 12);
    if len == 0 || !len.is_multiple_of(SECTOR) || len > end {
        return None;
    }
    let frame = &log[end - len..end];
    let offset = u64::from_le_bytes(frame[32..40].try_into().unwrap());
    let right = &frame[..8] == b"SEGVMREC"
        && u32_at(frame, 20) == len
        && offset == (end - len) as u64
        && u32_at(frame, len - 4) == crc(&frame[..len - 4]) as usize;
    right.then_some(frame)
}

/// 7.3: a whole frame that breaks a rule is damage.
fn decode(frame: &[u8]) -> Read<Frame> {
    let mut bytes = Bytes::new(frame);
    bytes.says(b"SEGVMREC\x01\0", "a frame's version")?;
    let mark = usize::from(bytes.u16()?);
    let (commit, attached, len) = (bytes.u32()?, bytes.u32()?, bytes.u32()?);
    let (commit, attached) = (commit as usize, attached as usize);
    let kept = mark <= 256 && commit <= 1 << 20 && attached <= 1 << 16;
    rule(kept, "lengths within a frame", 10)?;
    let least = (60 + mark + commit + attached).next_multiple_of(SECTOR);
    rule(len as usize == least, "a frame's length", 20)?;
    let (sequence, offset, before) = (bytes.u64()?, bytes.u64()?, bytes.u32()?);
    rule((before == 0) == (sequence == 0), "a first frame", 40)?;
    bytes.zeros(4)?;
    let marks = bytes.take(mark)?.to_vec();
    let commit = bytes.take(commit)?.to_vec();
    let token = token(bytes.take(attached)?)?;
    bytes.zeros_to(least - 12)?;
    bytes.take(12)?;
    bytes.end()?;
    Ok(Frame {
        sequence,
        marks,
        commit,
        token,
        offset: offset as usize,
        before: before as usize,
    })
}

/// What a frame's attachments say that this reader knows.
fn token(attachments: &[u8]) -> Read<u64> {
    let (mut bytes, mut token) = (Bytes::new(attachments), 0);
    while bytes.at() < attachments.len() as u64 {
        let at = bytes.at();
        let (kind, len) = (bytes.u16()?, bytes.u16()?);
        if kind == 1 {
            rule(len == 8 && token == 0, "a fencing token", at)?;
            token = bytes.u64()?;
        } else {
            bytes.take(usize::from(len))?;
        }
    }
    bytes.end()?;
    Ok(token)
}

/// All records, newest first; none where the image has no commit yet.
pub(crate) fn frames(store: &Path, image: &str) -> Read<Vec<Frame>> {
    rule(is_name(image), "an image's name", 0)?;
    let log = fs::read(store.join("images").join(image).join("log"))?;
    let written = log
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |at| at + 1);
    let mut end = log.len() / SECTOR * SECTOR;
    let head = loop {
        if end == 0 {
            return Ok(Vec::new());
        }
        if let Some(frame) = whole(&log, end) {
            break frame;
        }
        end -= SECTOR;
        rule(
            written.saturating_sub(end) <= LONGEST,
            "no head in reach",
            end as u64,
        )?;
    };
    let mut frames = vec![decode(head)?];
    loop {
        let newer = &frames[frames.len() - 1];
        if newer.sequence == 0 {
            rule(newer.offset == 0, "where the first frame lies", 0)?;
            return Ok(frames);
        }
        let at = newer.offset as u64;
        rule(newer.before <= newer.offset, "the frame before", at)?;
        let frame = whole(&log, newer.offset).filter(|frame| frame.len() == newer.before);
        rule(frame.is_some(), "the frame before is not whole", at)?;
        let older = decode(frame.unwrap_or_default())?;
        rule(older.sequence + 1 == newer.sequence, "sequence numbers", at)?;
        rule(older.token <= newer.token, "tokens that fall", at)?;
        frames.push(older);
    }
}

/// Section 3: `format`.
pub(crate) fn check_format(store: &Path) -> Read<()> {
    let format = fs::read(store.join("format"))?;
    rule(
        format == b"segvm store\nversion 1\n",
        "a store of this version without features",
        0,
    )
}

#[test]
fn names_are_checked() {
    assert!(is_name("a") && is_name("notes-2.old_") && is_name(&"x".repeat(64)));
    assert!(!is_name("") && !is_name(".hidden") && !is_name("Notes") && !is_name(&"x".repeat(65)));
    assert!(is_zero(&[]));
}
