//! Section 4: packs, and where each block and node lies.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use super::bytes::{Bytes, Id, Input, PAGE, Read, Wrong, block_id, crc, is_zero, node_id, rule};

const FIRST_BATCH: u64 = 2 * PAGE;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Block,
    Node,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Node => "node",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    id: Id,
    kind: Kind,
    offset: u64,
    len: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) pack: u64,
    pub(crate) end: u64,
}

/// 4.4: what the newest record of an image carries.
pub(crate) fn marks(bytes: &[u8]) -> Read<Vec<Mark>> {
    rule(
        bytes.len().is_multiple_of(16) && bytes.len() <= 8 * 16,
        "the marks' length",
        0,
    )?;
    let mut input = Bytes::new(bytes);
    let mut marks: Vec<Mark> = Vec::new();
    for _ in 0..bytes.len() / 16 {
        let at = input.at();
        let mark = Mark {
            pack: input.u64()?,
            end: input.u64()?,
        };
        rule(
            mark.end >= FIRST_BATCH && mark.end.is_multiple_of(PAGE),
            "a mark's offset",
            at,
        )?;
        rule(
            marks.iter().all(|other| other.pack != mark.pack),
            "two marks of a pack",
            at,
        )?;
        marks.push(mark);
    }
    input.end()?;
    Ok(marks)
}

/// 4.1: what the three kinds of page have in common; answers the bytes of the fields.
fn page(input: &Input, at: u64, magic: &[u8; 8], pack: u64) -> Read<Vec<u8>> {
    let page = input.read(at, PAGE)?;
    let mut bytes = Bytes::new(&page);
    bytes.says(magic, "a page's magic")?;
    rule(bytes.u32()? == 1, "a page's version", at)?;
    rule(bytes.u32()? == 0, "a page's flags", at)?;
    rule(bytes.u64()? == pack, "another pack's page", at)?;
    let fields = bytes.take(484)?.to_vec();
    rule(bytes.u32()? == crc(&page[..508]), "a page's checksum", at)?;
    bytes.zeros(3584)?;
    bytes.end()?;
    Ok(fields)
}

#[derive(Debug)]
struct Seal {
    end: u64,
    batches: u64,
    entries: u64,
    file: u64,
    fan_out: u32,
}

/// 4.5; `None` where the pack is not sealed.
fn seal(input: &Input, pack: u64) -> Read<Option<Seal>> {
    if input.len < FIRST_BATCH {
        return Ok(None);
    }
    if is_zero(&input.read(PAGE, PAGE)?) {
        return Ok(None);
    }
    let fields = page(input, PAGE, b"segvmsea", pack)?;
    let mut bytes = Bytes::new(&fields);
    let (end, batches, index) = (bytes.u64()?, bytes.u64()?, bytes.u64()?);
    let (entries, file, fan_out) = (bytes.u64()?, bytes.u64()?, bytes.u32()?);
    bytes.zeros_to(484)?;
    let kept = (FIRST_BATCH..=1 << 48).contains(&end) && end.is_multiple_of(PAGE) && index == end;
    rule(kept, "where a sealed pack's batches end", 24)?;
    rule(entries <= u64::from(u32::MAX), "a seal's entries", 48)?;
    let wanted = (end + 2048 + 48 * entries).next_multiple_of(PAGE);
    rule(file == wanted, "a sealed file's length", 56)?;
    Ok(Some(Seal {
        end,
        batches,
        entries,
        file,
        fan_out,
    }))
}

/// 4.3: one entry of a directory or an index.
fn entry(bytes: &mut Bytes<'_>) -> Read<Entry> {
    let at = bytes.at();
    let (id, offset, len) = (bytes.id()?, bytes.u64()?, u64::from(bytes.u32()?));
    let (kind, codec, log2, flags) = (bytes.u8()?, bytes.u8()?, bytes.u8()?, bytes.u8()?);
    rule(codec == 0 && flags == 0, "codec and flags of an entry", at)?;
    let kind = match kind {
        1 => {
            let kept = (12..=21).contains(&log2) && len == 1 << log2;
            rule(kept, "a block's length", at)?;
            rule(
                offset.is_multiple_of(len.min(65_536)),
                "where a block may lie",
                at,
            )?;
            Kind::Block
        }
        2 => {
            rule(
                log2 == 0 && (1..=1 << 20).contains(&len),
                "a node's length",
                at,
            )?;
            Kind::Node
        }
        _ => return Err(Wrong::Broken("an entry's kind", at)),
    };
    Ok(Entry {
        id,
        kind,
        offset,
        len,
    })
}

/// 4.2: appends what the batch's directory has; answers where the batch ends.
fn batch(input: &Input, pack: u64, at: u64, number: u64, out: &mut Vec<Entry>) -> Read<u64> {
    let fields = page(input, at, b"segvmbat", pack)?;
    let mut bytes = Bytes::new(&fields);
    rule(bytes.u64()? == number, "a batch's number", at)?;
    rule(bytes.u64()? == at, "a batch's offset", at)?;
    let (len, nodes, nodes_len) = (bytes.u64()?, bytes.u64()?, bytes.u64()?);
    let (directory, count, checksum) = (bytes.u64()?, bytes.u64()?, bytes.u32()?);
    bytes.zeros_to(484)?;
    let end = at.checked_add(len).filter(|&end| end <= input.len);
    let end = end.ok_or(Wrong::Broken("a batch's length", at))?;
    let nodes_end = nodes.checked_add(nodes_len).filter(|&nodes| nodes <= end);
    let nodes_end = nodes_end.ok_or(Wrong::Broken("the nodes' length", at))?;
    let kept = nodes.is_multiple_of(PAGE) && nodes >= at + PAGE && len.is_multiple_of(PAGE);
    rule(kept, "where a batch's nodes lie", at)?;
    rule(
        directory == nodes_end.next_multiple_of(16),
        "where a directory lies",
        at,
    )?;
    let directory_len = count.checked_mul(48).filter(|&len| len <= end - at);
    let directory_len = directory_len.ok_or(Wrong::Broken("a directory's length", at))?;
    rule(
        (directory + directory_len).next_multiple_of(PAGE) == end,
        "where a batch ends",
        at,
    )?;
    let bytes = input.read(directory, directory_len)?;
    rule(crc(&bytes) == checksum, "a directory's checksum", at)?;
    let mut bytes = Bytes::new(&bytes);
    let (mut free, mut node) = (at + PAGE, nodes);
    for _ in 0..count {
        let entry = entry(&mut bytes)?;
        match entry.kind {
            Kind::Block => {
                let kept =
                    node == nodes && entry.offset >= free && entry.offset + entry.len <= nodes;
                rule(kept, "a block outside its place", entry.offset)?;
                free = entry.offset + entry.len;
            }
            Kind::Node => {
                rule(entry.offset == node, "a gap before a node", entry.offset)?;
                node += entry.len;
            }
        }
        out.push(entry);
    }
    bytes.end()?;
    rule(node == nodes_end, "nodes that no entry names", node)?;
    Ok(end)
}

/// 4.4 and 4.5: the directories of all batches up to `end`, and how many batches there are.
fn walk(input: &Input, pack: u64, end: u64) -> Read<(Vec<Entry>, u64)> {
    let (mut at, mut number, mut found) = (FIRST_BATCH, 0, Vec::new());
    while at < end {
        at = batch(input, pack, at, number, &mut found)?;
        number += 1;
    }
    rule(at == end, "no batch ends where the durable ones end", at)?;
    Ok((found, number))
}

/// 4.6.
fn index(input: &Input, seal: &Seal) -> Read<Vec<Entry>> {
    rule(input.len == seal.file, "a sealed file's length", input.len)?;
    let table = input.read(seal.end, 2048)?;
    rule(
        crc(&table) == seal.fan_out,
        "a fan-out's checksum",
        seal.end,
    )?;
    let entries = seal.end + 2048;
    let bytes = input.read(entries, 48 * seal.entries)?;
    let mut table = Bytes::new(&table);
    let (mut from, mut found) = (0, Vec::new());
    for first in 0..=255 {
        let (to, checksum) = (table.u32()? as usize, table.u32()?);
        rule(
            from <= to && to as u64 <= seal.entries,
            "a fan-out that falls",
            u64::from(first),
        )?;
        let bucket = &bytes[from * 48..to * 48];
        rule(
            crc(bucket) == checksum,
            "a bucket's checksum",
            u64::from(first),
        )?;
        let mut bucket = Bytes::new(bucket);
        for _ in from..to {
            let entry = entry(&mut bucket)?;
            rule(entry.id[0] == first, "an entry in another's bucket", 0)?;
            found.push(entry);
        }
        from = to;
    }
    rule(
        from as u64 == seal.entries,
        "the fan-out's last number",
        seal.entries,
    )?;
    let ascending = found
        .windows(2)
        .all(|pair| (pair[0].id, pair[0].kind) < (pair[1].id, pair[1].kind));
    rule(ascending, "an index out of order", entries)?;
    let end = entries + 48 * seal.entries;
    rule(
        is_zero(&input.read(end, seal.file - end)?),
        "bytes behind the index",
        end,
    )?;
    Ok(found)
}

/// Everything that an image can need, by id.
#[derive(Debug, Default)]
pub(crate) struct Packs {
    packs: BTreeMap<u64, Pack>,
    places: BTreeMap<(Kind, Id), (u64, Entry)>,
    /// Sealed packs whose index could not be used.
    pub(crate) walked: usize,
}

#[derive(Debug)]
struct Pack {
    input: Input,
    sealed: bool,
    /// Where the last batch that counts ends.
    end: u64,
}

fn id_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".pack")?;
    let id = u64::from_str_radix(digits, 16).ok()?;
    (digits == format!("{id:016x}")).then_some(id)
}

impl Packs {
    /// Step 5 of section 9.
    pub(crate) fn open(store: &Path, marks: &[Mark]) -> Read<Self> {
        let mut packs = Self::default();
        for file in fs::read_dir(store.join("packs"))? {
            let path = file?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(id) = name.and_then(id_of) {
                let mark = marks.iter().find(|mark| mark.pack == id);
                packs.add(&path, id, mark)?;
            }
        }
        for mark in marks {
            rule(
                packs.packs.contains_key(&mark.pack),
                "a marked pack is missing",
                mark.pack,
            )?;
        }
        Ok(packs)
    }

    fn add(&mut self, path: &Path, id: u64, mark: Option<&Mark>) -> Read<()> {
        let input = Input::open(path)?;
        let seal = seal(&input, id)?;
        if seal.is_none() && mark.is_none() {
            return Ok(());
        }
        let fields = page(&input, 0, b"segvmpak", id)?;
        rule(is_zero(&fields), "a pack header's fields", 24)?;
        let entries = match (&seal, mark) {
            (Some(seal), mark) => {
                let kept = mark.is_none_or(|mark| mark.end <= seal.end);
                rule(kept, "a mark behind the seal", seal.end)?;
                let (all, batches) = walk(&input, id, seal.end)?;
                rule(batches == seal.batches, "a seal's batches", batches)?;
                match index(&input, seal) {
                    Ok(entries) => {
                        // Not needed to read, but a rule: the index has what the directories have.
                        let once = |all: &[Entry]| -> BTreeSet<(Id, Kind)> {
                            all.iter().map(|entry| (entry.id, entry.kind)).collect()
                        };
                        rule(
                            once(&all) == once(&entries),
                            "an index that lacks entries",
                            0,
                        )?;
                        let all: BTreeSet<Entry> = all.into_iter().collect();
                        let kept = entries.iter().all(|entry| all.contains(entry));
                        rule(kept, "an index of its own mind", 0)?;
                        entries
                    }
                    Err(_) => {
                        self.walked += 1;
                        all
                    }
                }
            }
            (None, Some(mark)) => walk(&input, id, mark.end)?.0,
            (None, None) => return Ok(()),
        };
        for entry in entries {
            self.places.insert((entry.kind, entry.id), (id, entry));
        }
        let sealed = seal.is_some();
        let end = seal.map(|seal| seal.end).or(mark.map(|mark| mark.end));
        let end = end.unwrap_or(FIRST_BATCH);
        self.packs.insert(id, Pack { input, sealed, end });
        Ok(())
    }

    fn read(&self, kind: Kind, id: &Id) -> Read<Vec<u8>> {
        let place = self.places.get(&(kind, *id));
        let (pack, entry) = place.ok_or(Wrong::Absent(kind.name(), *id))?;
        self.packs[pack].input.read(entry.offset, entry.len)
    }

    pub(crate) fn node(&self, id: &Id) -> Read<Vec<u8>> {
        let bytes = self.read(Kind::Node, id)?;
        rule(node_id(&bytes) == *id, "a node's hash", 0)?;
        Ok(bytes)
    }

    pub(crate) fn block(&self, id: &Id) -> Read<Vec<u8>> {
        let bytes = self.read(Kind::Block, id)?;
        rule(block_id(&bytes) == *id, "a block's hash", 0)?;
        rule(!is_zero(&bytes), "a stored block of zeros", 0)?;
        Ok(bytes)
    }

    /// What an extent map shows.
    pub(crate) fn extent(&self, pack: u64, at: u64, len: u64) -> Read<Vec<u8>> {
        let end = at.checked_add(len);
        let pack = self
            .packs
            .get(&pack)
            .filter(|pack| end.is_some_and(|end| end <= pack.end));
        let pack = pack.ok_or(Wrong::Broken("an extent in nothing durable", at))?;
        pack.input.read(at, len)
    }

    pub(crate) fn count(&self) -> usize {
        self.packs.len()
    }

    pub(crate) fn unsealed(&self) -> usize {
        self.packs.values().filter(|pack| !pack.sealed).count()
    }
}
