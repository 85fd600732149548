//! The format of packs and extent maps, as files that are kept: read by this crate, and by a reader that was written
//! from docs/format.md alone and shares no code with it.
//!
//! `SEGVM_BLESS=1 cargo test --test pack_golden` writes the files of a new version. Those of a released version never
//! change again.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod pack_support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use segvm_blockcache::{
    BlockIndex, BlockSize, Layout, NodeId, NodeSink, PackId, TreeId, WriterOptions,
    disk::{Disk, MemDisk, Open},
};

use pack_support::{Twin, paint, put, store};

const PACK: u64 = 0x0123_4567_89ab_cdef;
const TREE: TreeId = TreeId::from_bytes([0xab; 32]);

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn bytes_of(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Two batches with blocks of two sizes and three nodes; and the extent map of eight blocks of it.
fn write() -> (Vec<u8>, Vec<u8>, Twin) {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let live = store(&disk);
    let mut writer = live.writer(WriterOptions {
        id: Some(PackId(PACK)),
        ..WriterOptions::default()
    });
    let mut twin = Twin::default();
    let node = |writer: &mut dyn NodeSink, twin: &mut Twin, seed, len| {
        let bytes = paint(seed, len);
        writer.put_node(NodeId::of(&bytes), &bytes).unwrap();
        twin.nodes.insert(NodeId::of(&bytes), bytes);
    };
    put(&mut writer, 12, &[Some(1), None, Some(2)], &mut twin).unwrap();
    node(&mut writer, &mut twin, 20, 77);
    put(&mut writer, 14, &[Some(3)], &mut twin).unwrap();
    node(&mut writer, &mut twin, 21, 1000);
    writer.sync().unwrap();
    put(&mut writer, 12, &[Some(4)], &mut twin).unwrap();
    node(&mut writer, &mut twin, 22, 16);

    let mut layout = Layout::new(BlockSize::MIN);
    for (at, seed) in [(0, 1), (1, 2), (7, 4), (8, 1)] {
        let id = segvm_blockcache::BlockId::of(&paint(seed, 4096));
        layout.set(BlockIndex(at), writer.locate(&id));
    }
    let pack = writer.seal().unwrap().unwrap();
    live.save_extents(TREE, &layout).unwrap();
    let pack = bytes_of(&*disk, &live.pack_path(pack));
    let extents = bytes_of(&*disk, format!("/store/extents/{TREE}.ext").as_ref());
    (pack, extents, twin)
}

#[test]
fn version_1_is_written_and_read_as_ever() {
    let (pack, extents, twin) = write();
    let files = [("pack-v1.pack", &pack), ("extents-v1.ext", &extents)];
    for (name, bytes) in files {
        if std::env::var_os("SEGVM_BLESS").is_some() {
            std::fs::write(golden(name), bytes).unwrap();
        }
        let kept = std::fs::read(golden(name)).unwrap();
        assert!(kept == *bytes, "{name} is not what is written now");
    }

    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let fresh = store(&disk);
    let put = |path: PathBuf, name| {
        let file = disk.open(&path, Open::CreateNew).unwrap();
        file.write_at(0, &std::fs::read(golden(name)).unwrap())
            .unwrap();
    };
    put(fresh.pack_path(PackId(PACK)), "pack-v1.pack");
    put(
        format!("/store/extents/{TREE}.ext").into(),
        "extents-v1.ext",
    );
    twin.check(&fresh);
    let layout = fresh.load_extents(TREE).unwrap();
    assert_eq!(layout.len(), 3);
    assert_eq!(layout.get(BlockIndex(0)), layout.get(BlockIndex(8)));
}

/// What docs/format.md says, and nothing else.
mod reader {
    use super::BTreeMap;

    /// CRC-32C bit by bit: slow and obvious.
    pub(super) fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0_u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                if crc & 1 == 1 {
                    crc >> 1 ^ 0x82f6_3b78
                } else {
                    crc >> 1
                }
            })
        })
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn at(bytes: &[u8], at: usize) -> usize {
        usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap()
    }

    fn zero(bytes: &[u8]) -> bool {
        bytes.iter().all(|&byte| byte == 0)
    }

    fn page<'a>(pack: &'a [u8], offset: usize, magic: &str, id: u64, fields: usize) -> &'a [u8] {
        let page = &pack[offset..offset + 4096];
        assert_eq!(&page[..8], magic.as_bytes());
        assert_eq!((u32_at(page, 8), u32_at(page, 12)), (1, 0));
        assert_eq!(page[16..24], id.to_le_bytes());
        assert_eq!(u32_at(page, 508), crc(&page[..508]));
        assert!(zero(&page[fields..508]) && zero(&page[512..]));
        page
    }

    pub(super) type Things = BTreeMap<(u8, [u8; 32]), Vec<u8>>;

    /// One entry: its name, and its bytes after their hash was checked.
    fn thing(pack: &[u8], entry: &[u8]) -> ((u8, [u8; 32]), Vec<u8>) {
        let id: [u8; 32] = entry[..32].try_into().unwrap();
        let (offset, stored) = (at(entry, 32), u32_at(entry, 40) as usize);
        let [kind, codec, log2, flags] = entry[44..48].try_into().unwrap();
        assert_eq!((codec, flags), (0, 0));
        let context = match kind {
            1 => {
                assert!((12..=21).contains(&log2) && stored == 1 << log2);
                assert_eq!(offset % stored.min(65536), 0);
                "segvm 2026-11 block v1"
            }
            2 => {
                assert!(log2 == 0 && (1..=1 << 20).contains(&stored));
                "segvm 2026-11 node v1"
            }
            other => panic!("kind {other}"),
        };
        let bytes = &pack[offset..offset + stored];
        assert_eq!(blake3::derive_key(context, bytes), id);
        ((kind, id), bytes.to_vec())
    }

    /// Everything in a sealed pack, found through its batches and found through its index.
    pub(super) fn sealed(pack: &[u8], id: u64) -> (Things, Things) {
        page(pack, 0, "segvmpak", id, 24);
        let seal = page(pack, 4096, "segvmsea", id, 68);
        let (end, batches, index) = (at(seal, 24), at(seal, 32), at(seal, 40));
        assert_eq!(index, end);

        let mut walked = Things::new();
        let (mut offset, mut sequence) = (8192, 0);
        while offset < end {
            let batch = page(pack, offset, "segvmbat", id, 84);
            assert_eq!((at(batch, 24), at(batch, 32)), (sequence, offset));
            let (nodes, directory) = (at(batch, 48), at(batch, 64));
            assert_eq!(directory, (nodes + at(batch, 56)).next_multiple_of(16));
            let entries = &pack[directory..directory + at(batch, 72) * 48];
            assert_eq!(u32_at(batch, 80), crc(entries));
            let mut last = offset + 4096;
            for entry in entries.chunks(48) {
                assert!(at(entry, 32) >= last);
                last = at(entry, 32) + u32_at(entry, 40) as usize;
                let (name, bytes) = thing(pack, entry);
                walked.insert(name, bytes);
            }
            offset = (directory + entries.len()).next_multiple_of(4096);
            assert_eq!(at(batch, 40), offset - at(batch, 32));
            sequence += 1;
        }
        assert_eq!((offset, sequence), (end, batches));

        let mut indexed = Things::new();
        let (fanout, rest) = pack[index..].split_at(2048);
        assert_eq!(u32_at(seal, 64), crc(fanout));
        let mut from = 0;
        for (first, line) in (0_u8..=255).zip(fanout.chunks(8)) {
            let to = u32_at(line, 0) as usize;
            let bucket = &rest[from * 48..to * 48];
            assert_eq!(u32_at(line, 4), crc(bucket));
            for entry in bucket.chunks(48) {
                assert_eq!(entry[0], first);
                let (name, bytes) = thing(pack, entry);
                assert!(indexed.insert(name, bytes).is_none());
            }
            from = to;
        }
        assert_eq!(from, at(seal, 48));
        assert!(zero(&rest[from * 48..]));
        let file_len = (index + 2048 + from * 48).next_multiple_of(4096);
        assert_eq!((at(seal, 56), pack.len()), (file_len, file_len));
        (walked, indexed)
    }

    /// First block, blocks, pack, offset.
    pub(super) fn extents(bytes: &[u8], tree: [u8; 32]) -> (u32, Vec<[usize; 4]>) {
        assert_eq!(&bytes[..8], b"segvmext");
        assert_eq!((u32_at(bytes, 8), &bytes[16..48]), (1, &tree[..]));
        let (head, lines) = bytes.split_at(64);
        assert_eq!(
            (u32_at(head, 56), u32_at(head, 60)),
            (crc(lines), crc(&head[..60]))
        );
        assert_eq!(lines.len(), at(head, 48) * 32);
        let lines = lines.chunks(32);
        let extents = lines.map(|line| [0, 8, 16, 24].map(|field| at(line, field)));
        (u32_at(head, 12), extents.collect())
    }
}

#[test]
fn a_reader_written_from_the_document_agrees() {
    assert_eq!(reader::crc(b"123456789"), 0xe306_9283);
    let (_, _, twin) = write();
    let pack = std::fs::read(golden("pack-v1.pack")).unwrap();
    let (walked, indexed) = reader::sealed(&pack, PACK);
    assert_eq!(walked, indexed);
    assert_eq!(walked.len(), twin.blocks.len() + twin.nodes.len());
    for (id, bytes) in &twin.blocks {
        assert_eq!(&walked[&(1, *id.as_bytes())], bytes);
    }
    for (id, bytes) in &twin.nodes {
        assert_eq!(&walked[&(2, *id.as_bytes())], bytes);
    }

    let extents = std::fs::read(golden("extents-v1.ext")).unwrap();
    let (log2, extents) = reader::extents(&extents, *TREE.as_bytes());
    assert_eq!(log2, 12);
    for [first, blocks, id, offset] in extents {
        assert_eq!(id as u64, PACK);
        for at in 0..blocks {
            let bytes = &pack[offset + at * 4096..][..4096];
            let seed = [(0, 1), (1, 2), (7, 4), (8, 1)]
                .into_iter()
                .find(|(block, _)| *block == first + at)
                .unwrap()
                .1;
            assert_eq!(bytes, paint(seed, 4096));
        }
    }
}
