//! `segvm import`: the bytes of a file become a segment, in a new commit.

use std::{fs::File, io, io::Read as _, sync::Arc};

use serde_json::json;

use segvm_blockcache::{BlockId, BlockIndex, BlockSize, PackWriter, Store, Tree, WriterOptions};
use segvm_home::{Commit, ImageName, Record, SegmentKind, SegmentRecord};

use super::seal;
use crate::{
    args::Import,
    failure::Failure,
    local::Local,
    output::{Output, bytes, printable},
};

/// How much address space a new segment gets, as a session's does.
const RESERVED: u64 = 64 << 30;
/// Where new segments may begin, and at multiples of what.
const BASES: (u64, u64) = (16 << 40, 80 << 40);
const BASE_STEP: u64 = 1 << 30;

pub(super) fn run(local: &Local, args: &Import, out: &mut Output) -> Result<(), Failure> {
    local.must_be_there()?;
    let unreadable = |source| Failure::Read {
        path: args.file.clone(),
        source,
    };
    let mut file = File::open(&args.file).map_err(unreadable)?;
    let len = file.metadata().map_err(unreadable)?.len();
    // Open until the end: what the new commit names is not collected meanwhile.
    let store = local.store()?;
    if args.program.is_none() {
        // A mistyped name would make a lease of what is no image.
        local.head(&args.image)?;
    }
    let mut lease = local.home.acquire(&args.image, local.holder())?;
    let head = lease.head().cloned();
    let segment = segment(args, head.as_ref(), len)?;
    seal::as_holder(&store, &lease)?;
    let (tree, written) = write(&store, &segment, &mut file, args)?;
    let commit = commit(
        local,
        args,
        head.as_ref(),
        SegmentRecord { tree, ..segment },
    )?;
    // With equal segments no new commit is made, as by a checkpoint.
    let same = head.filter(|head| head.commit.segments == commit.segments);
    let commit_id = match same {
        Some(head) => head.commit_id,
        None => lease.publish(&commit, &[])?,
    };
    if out.is_json() {
        return out.json(&json!({
            "image": args.image.as_str(),
            "commit": commit_id.to_string(),
            "segment": args.segment,
            "length": len,
            "written": written,
        }));
    }
    out.line(format!(
        "{}@{commit_id:.12} has {} of {} in segment {}, {} of it new in the store",
        args.image,
        bytes(len),
        args.file.display(),
        printable(&args.segment),
        bytes(written)
    ))
}

/// The segment as the image has it, or a new one of raw bytes; its tree is not made yet.
fn segment(args: &Import, head: Option<&Record>, len: u64) -> Result<SegmentRecord, Failure> {
    let others = head.map_or(&[][..], |head| &head.commit.segments);
    let known = others.iter().find(|segment| segment.name == args.segment);
    let size = known.map_or(BlockSize::DEFAULT, |known| known.block_size);
    // As a session grows a segment: by whole blocks.
    let whole = size.count(len).saturating_mul(1 << size.log2());
    let segment = match known {
        Some(known) => known.clone(),
        None => {
            let reserved = whole.next_multiple_of(BASE_STEP).max(RESERVED);
            SegmentRecord {
                name: args.segment.clone(),
                tree: segvm_blockcache::TreeId::from_bytes([0; 32]),
                len: whole,
                block_size: size,
                base: base(&args.image, &args.segment, reserved, others)
                    .ok_or_else(|| too_long(args, len, 0))?,
                reserved,
                kind: SegmentKind::Raw,
                fingerprint: [0; 32],
                ranges: Vec::new(),
            }
        }
    };
    if whole > segment.reserved {
        return Err(too_long(args, len, segment.reserved));
    }
    Ok(SegmentRecord {
        len: whole,
        ..segment
    })
}

fn too_long(args: &Import, len: u64, reserved: u64) -> Failure {
    Failure::TooLong {
        segment: args.segment.clone(),
        len,
        reserved,
    }
}

/// An address for a new segment: chosen by its name, the next one where another segment of the image is.
fn base(image: &ImageName, segment: &str, reserved: u64, others: &[SegmentRecord]) -> Option<u64> {
    let seed = BlockId::of(format!("{image}/{segment}").as_bytes());
    let number = seed
        .as_bytes()
        .first_chunk()
        .map_or(0, |first| u64::from_le_bytes(*first));
    let places = (BASES.1 - BASES.0).checked_sub(reserved)? / BASE_STEP + 1;
    let free = |base: &u64| {
        let apart = |other: &SegmentRecord| {
            base.saturating_add(reserved) <= other.base
                || other.base.saturating_add(other.reserved) <= *base
        };
        others.iter().all(apart)
    };
    let at = |n: u64| BASES.0 + (number.wrapping_add(n) % places) * BASE_STEP;
    (0..places).map(at).find(free)
}

/// Stores what is not stored yet, and the tree. Durable when it returns: the pack is sealed.
fn write(
    store: &Arc<Store>,
    segment: &SegmentRecord,
    file: &mut File,
    args: &Import,
) -> Result<(segvm_blockcache::TreeId, u64), Failure> {
    let failed = |source| Failure::Tree {
        segment: segment.name.clone(),
        source,
    };
    let mut writer = store.writer(WriterOptions::default());
    let mut tree = Tree::new(segment.block_size, segment.len).map_err(failed)?;
    let mut written = 0;
    for index in 0..segment.block_size.count(segment.len) {
        let (id, new) = put(&mut writer, segment.block_size, file, args)?;
        written += new;
        tree.set(&**store, BlockIndex(index), id).map_err(failed)?;
    }
    let tree = tree.seal(&mut writer).map_err(|source| Failure::Nodes {
        segment: segment.name.clone(),
        source,
    })?;
    writer.seal()?;
    Ok((tree, written))
}

/// Reads a block and stores it, unless it is all zeros or stored already; answers how many bytes that were.
fn put(
    writer: &mut PackWriter,
    size: BlockSize,
    file: &mut File,
    args: &Import,
) -> Result<(Option<BlockId>, u64), Failure> {
    let room = writer.room(size, 1)?;
    fill(file, room).map_err(|source| Failure::Read {
        path: args.file.clone(),
        source,
    })?;
    if room.iter().all(|byte| *byte == 0) {
        return Ok((None, 0));
    }
    let id = BlockId::of(room);
    if writer.locate(&id).is_some() {
        return Ok((Some(id), 0));
    }
    writer.keep(&[Some(id)])?;
    Ok((Some(id), 1 << size.log2()))
}

/// Fills a block from the file; what the file does not have is zeros.
fn fill(file: &mut File, mut room: &mut [u8]) -> io::Result<()> {
    while !room.is_empty() {
        match file.read(room) {
            Ok(0) => {
                room.fill(0);
                break;
            }
            Ok(n) => room = room.split_at_mut(n).1,
            Err(again) if again.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn commit(
    local: &Local,
    args: &Import,
    head: Option<&Record>,
    segment: SegmentRecord,
) -> Result<Commit, Failure> {
    let before = head.map(|head| head.commit.clone());
    let page = segvm_os::page_size().map_or(12, segvm_os::PageSize::log2);
    let mut commit = before.unwrap_or_else(|| Commit {
        page_size_log2: u8::try_from(page).unwrap_or(u8::MAX),
        pointer_width: u8::try_from(usize::BITS / 8).unwrap_or(u8::MAX),
        ..Commit::default()
    });
    if let Some(program) = &args.program {
        commit.program.clone_from(program);
    }
    if commit.program.is_empty() {
        return Err(Failure::NoProgram(args.image.clone()));
    }
    commit.parents = head.iter().map(|head| head.commit_id).collect();
    commit.time = local.now;
    commit.host = segvm_os::host_name();
    commit.generation = commit.generation.saturating_add(1);
    commit.attributes.clear();
    commit.segments.retain(|other| other.name != segment.name);
    commit.segments.push(segment);
    commit.segments.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_segments_have_addresses_of_their_own() {
        let image: ImageName = "notes".parse().unwrap();
        let mut others = Vec::new();
        for n in 0..200 {
            // Names that repeat wish for the same place.
            let name = format!("s{}", n % 3);
            let base = base(&image, &name, RESERVED, &others).unwrap();
            assert!(
                base >= BASES.0 && base + RESERVED <= BASES.1 && base.is_multiple_of(BASE_STEP)
            );
            for other in &others {
                let other: &SegmentRecord = other;
                assert!(base >= other.base + RESERVED || base + RESERVED <= other.base);
            }
            others.push(SegmentRecord {
                name,
                tree: segvm_blockcache::TreeId::from_bytes([0; 32]),
                len: 0,
                block_size: BlockSize::DEFAULT,
                base,
                reserved: RESERVED,
                kind: SegmentKind::Raw,
                fingerprint: [0; 32],
                ranges: Vec::new(),
            });
        }
        assert_eq!(super::base(&image, "huge", 65 << 40, &[]), None);
    }
}
