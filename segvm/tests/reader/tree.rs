//! Sections 5 and 6: the blocks of a segment, by its tree, and the extent map that says the same in runs.

use std::{fs, path::Path};

use super::{
    bytes::{Bytes, HOLE, Id, Read, crc, is_zero, rule, text},
    pack::Packs,
};

const FAN_OUT: u64 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) log2: u8,
    pub(crate) len: u64,
}

impl Shape {
    fn block(self) -> u64 {
        1 << self.log2
    }

    fn blocks(self) -> u64 {
        self.len.div_ceil(self.block())
    }

    fn height(self) -> u8 {
        let mut height = 1;
        while covers(height) < self.blocks() {
            height += 1;
        }
        height
    }
}

/// How many blocks a node at this level covers; a child of level 0 is a block.
fn covers(level: u8) -> u64 {
    FAN_OUT.saturating_pow(u32::from(level))
}

/// A segment's bytes, and how many of its blocks are stored.
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) stored: u64,
    pub(crate) height: u8,
}

/// Steps 6 to 8 of section 9.
pub(crate) fn content(packs: &Packs, tree: &Id, wanted: Shape) -> Read<Content> {
    let head = packs.node(tree)?;
    let mut bytes = Bytes::new(&head);
    bytes.says(b"SEGT\x01\x02", "a head's kind")?;
    let (height, log2, len) = (bytes.u8()?, bytes.u8()?, bytes.u64()?);
    rule((12..=21).contains(&log2), "a head's block size", 7)?;
    rule(len <= 1 << 56, "a head's length", 8)?;
    let shape = Shape { log2, len };
    rule(height == shape.height(), "a head's height", 6)?;
    bytes.zeros(16)?;
    let root = bytes.id()?;
    bytes.end()?;
    rule(shape == wanted, "the commit's word about the tree", 0)?;
    rule(len > 0 || root == HOLE, "the root of nothing", 32)?;
    let mut content = Content {
        bytes: vec![0; len as usize],
        stored: 0,
        height,
    };
    descend(packs, shape, height, 0, &root, &mut content)?;
    Ok(content)
}

/// Fills in what lies below a child: a node at `level`, or a block where that is 0.
fn descend(
    packs: &Packs,
    shape: Shape,
    level: u8,
    first: u64,
    id: &Id,
    out: &mut Content,
) -> Read<()> {
    if *id == HOLE {
        return Ok(());
    }
    rule(first < shape.blocks(), "a child behind the end", first)?;
    if level == 0 {
        let block = packs.block(id)?;
        rule(block.len() as u64 == shape.block(), "a block's size", first)?;
        let at = (first * shape.block()) as usize;
        let end = out.bytes.len().min(at + block.len());
        let (within, beyond) = block.split_at(end - at);
        rule(is_zero(beyond), "bytes behind the segment's end", first)?;
        out.bytes[at..end].copy_from_slice(within);
        out.stored += 1;
        return Ok(());
    }
    let node = packs.node(id)?;
    let mut bytes = Bytes::new(&node);
    bytes.says(b"SEGT\x01\x01", "a node's kind")?;
    rule(bytes.u8()? == level, "a node's level", 6)?;
    bytes.zeros(1)?;
    let count = u64::from(bytes.u32()?);
    bytes.zeros(4)?;
    let part = covers(level - 1);
    let most = (shape.blocks() - first).div_ceil(part).min(FAN_OUT);
    rule((1..=most).contains(&count), "a node's count", 8)?;
    let mut last = HOLE;
    for child in 0..count {
        last = bytes.id()?;
        descend(packs, shape, level - 1, first + child * part, &last, out)?;
    }
    rule(last != HOLE, "a trailing hole", 12)?;
    bytes.end()
}

/// What the extent map of a tree shows, if there is one; it needs no hash, and gives the same.
pub(crate) fn mapped(
    store: &Path,
    packs: &Packs,
    tree: &Id,
    shape: Shape,
) -> Read<Option<Vec<u8>>> {
    let path = store.join("extents").join(format!("{}.ext", text(tree)));
    let Ok(map) = fs::read(path) else {
        return Ok(None);
    };
    let mut bytes = Bytes::new(&map);
    bytes.says(b"segvmext\x01\0\0\0", "an extent map's kind")?;
    rule(bytes.u32()? == u32::from(shape.log2), "its block size", 12)?;
    rule(bytes.id()? == *tree, "its tree", 16)?;
    let (count, checksum) = (bytes.u64()?, bytes.u32()?);
    rule(bytes.u32()? == crc(&map[..60]), "its own checksum", 60)?;
    rule(
        count.checked_mul(32) == Some(map.len() as u64 - 64),
        "its length",
        48,
    )?;
    rule(crc(&map[64..]) == checksum, "its extents' checksum", 56)?;
    let mut out = vec![0; (shape.blocks() * shape.block()) as usize];
    let mut before: Option<(u64, u64, u64)> = None;
    for _ in 0..count {
        let at = bytes.at();
        let (first, blocks, pack, offset) =
            (bytes.u64()?, bytes.u64()?, bytes.u64()?, bytes.u64()?);
        let end = first.checked_add(blocks);
        let end = end.filter(|&end| blocks > 0 && end <= shape.blocks());
        rule(
            end.is_some() && offset.is_multiple_of(4096),
            "an extent's numbers",
            at,
        )?;
        if let Some((end, pack_before, offset_before)) = before {
            rule(end <= first, "extents out of order", at)?;
            let longer = (end, pack_before, offset_before) == (first, pack, offset);
            rule(!longer, "an extent that could be longer", at)?;
        }
        let len = blocks * shape.block();
        let shown = packs.extent(pack, offset, len)?;
        out[(first * shape.block()) as usize..][..shown.len()].copy_from_slice(&shown);
        before = end.map(|end| (end, pack, offset + len));
    }
    bytes.end()?;
    out.truncate(shape.len as usize);
    Ok(Some(out))
}
