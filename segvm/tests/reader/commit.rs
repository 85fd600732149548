//! Section 8: what a commit says.

use super::{
    bytes::{Bytes, Id, Read, rule},
    tree::Shape,
};

#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) page: u64,
    pub(crate) pointer: u8,
    pub(crate) parents: Vec<Id>,
    pub(crate) generation: u64,
    pub(crate) seconds: i64,
    pub(crate) program: String,
    pub(crate) segments: Vec<Segment>,
    pub(crate) attributes: Vec<(String, Vec<u8>)>,
}

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) tree: Id,
    pub(crate) fingerprint: Id,
    pub(crate) shape: Shape,
    pub(crate) base: u64,
    pub(crate) reserved: u64,
    pub(crate) heap: bool,
}

fn words(bytes: &mut Bytes<'_>) -> Read<String> {
    let len = usize::from(bytes.u8()?);
    let at = bytes.at();
    let text = String::from_utf8(bytes.take(len)?.to_vec());
    rule(text.is_ok(), "text that is not UTF-8", at)?;
    Ok(text.unwrap_or_default())
}

pub(crate) fn decode(commit: &[u8]) -> Read<Commit> {
    rule(commit.len() <= 1 << 20, "a commit's length", 0)?;
    let mut bytes = Bytes::new(commit);
    bytes.says(b"SEGVMCMT\x01\0", "a commit's version")?;
    let (page, pointer, parents) = (bytes.u8()?, bytes.u8()?, bytes.u32()?);
    rule((12..=16).contains(&page), "a page's size", 10)?;
    rule(pointer == 4 || pointer == 8, "a pointer's size", 11)?;
    rule(parents <= 16, "the number of parents", 12)?;
    let generation = bytes.u64()?;
    let seconds = bytes.u64()? as i64;
    rule(bytes.u32()? < 1_000_000_000, "nanoseconds", 32)?;
    let (segments, attributes) = (bytes.u32()?, bytes.u32()?);
    rule(segments <= 4096, "the number of segments", 36)?;
    rule(attributes <= 256, "the number of attributes", 40)?;
    bytes.zeros(4)?;
    let parents = (0..parents).map(|_| bytes.id()).collect::<Read<_>>()?;
    let _host = words(&mut bytes)?;
    let program = words(&mut bytes)?;
    let segments: Vec<Segment> = (0..segments)
        .map(|_| segment(&mut bytes))
        .collect::<Read<_>>()?;
    let kept = segments.iter().all(|segment| segment.shape.log2 >= page);
    rule(kept, "a block smaller than a page", bytes.at())?;
    let ascending = segments.windows(2).all(|two| two[0].name < two[1].name);
    rule(ascending, "segments out of order", bytes.at())?;
    let attributes: Vec<(String, Vec<u8>)> = (0..attributes)
        .map(|_| {
            let key = words(&mut bytes)?;
            let len = bytes.u32()?;
            rule(!key.is_empty() && len <= 65_536, "an attribute", bytes.at())?;
            Ok((key, bytes.take(len as usize)?.to_vec()))
        })
        .collect::<Read<_>>()?;
    let ascending = attributes.windows(2).all(|two| two[0].0 < two[1].0);
    rule(ascending, "attributes out of order", bytes.at())?;
    bytes.end()?;
    Ok(Commit {
        page: 1 << page,
        pointer,
        parents,
        generation,
        seconds,
        program,
        segments,
        attributes,
    })
}

fn segment(bytes: &mut Bytes<'_>) -> Read<Segment> {
    let at = bytes.at();
    let name = words(bytes)?;
    rule(!name.is_empty(), "a segment's name", at)?;
    let (tree, fingerprint) = (bytes.id()?, bytes.id()?);
    let (len, base, reserved) = (bytes.u64()?, bytes.u64()?, bytes.u64()?);
    let kept = len <= reserved && base.checked_add(reserved).is_some();
    rule(kept, "a segment's place", at)?;
    let (log2, kind) = (bytes.u8()?, bytes.u8()?);
    rule((12..=21).contains(&log2), "a segment's block size", at)?;
    rule(kind <= 1, "a segment's kind", at)?;
    bytes.zeros(2)?;
    let ranges = bytes.u32()?;
    rule(ranges <= 16_384, "the number of ranges", at)?;
    let mut free = 0;
    for _ in 0..ranges {
        let (start, len, kind) = (bytes.u64()?, bytes.u64()?, bytes.u8()?);
        bytes.zeros(7)?;
        let end = start.checked_add(len).filter(|&end| end <= reserved);
        let kept = start >= free && len > 0 && end.is_some() && (1..=3).contains(&kind);
        rule(kept, "a range", at)?;
        free = start + len;
    }
    Ok(Segment {
        name,
        tree,
        fingerprint,
        shape: Shape { log2, len },
        base,
        reserved,
        heap: kind == 1,
    })
}
