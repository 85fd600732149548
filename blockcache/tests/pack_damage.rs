//! A flipped bit anywhere that matters is found when it is read, and named; what can be made again is.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod pack_support;

use std::{path::PathBuf, sync::Arc};

use segvm_blockcache::{
    BlockId, NodeId, NodeReadError, NodeSink, NodeSource, PackId, PackMark, ReadError, Store,
    StoreError, WriterOptions,
    disk::{Disk, MemDisk, Open},
};

use pack_support::{Twin, paint, put, store};

const PAGE: usize = 4096;

struct Written {
    /// Unsealed, and two batches long.
    open: Vec<u8>,
    sealed: Vec<u8>,
    mark: PackMark,
    first: PackMark,
    twin: Twin,
}

fn name(pack: PackId) -> PathBuf {
    PathBuf::from(format!("/store/packs/{pack}.pack"))
}

fn bytes_of(disk: &dyn Disk, pack: PackId) -> Vec<u8> {
    let file = disk.open(&name(pack), Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

fn written() -> Written {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let live = store(&disk);
    let mut writer = live.writer(WriterOptions {
        id: Some(PackId(7)),
        ..WriterOptions::default()
    });
    let mut twin = Twin::default();
    let mut marks = Vec::new();
    for round in 0..2 {
        put(
            &mut writer,
            12,
            &[Some(round * 2), Some(round * 2 + 1)],
            &mut twin,
        )
        .unwrap();
        let bytes = paint(90 + round, 300);
        writer.put_node(NodeId::of(&bytes), &bytes).unwrap();
        twin.nodes.insert(NodeId::of(&bytes), bytes);
        marks.push(writer.sync().unwrap().unwrap());
    }
    let open = bytes_of(&*disk, PackId(7));
    writer.seal().unwrap();
    Written {
        open,
        sealed: bytes_of(&*disk, PackId(7)),
        first: marks[0],
        mark: marks[1],
        twin,
    }
}

/// A store whose one pack has these bytes.
fn store_with(bytes: &[u8]) -> Arc<Store> {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let store = store(&disk);
    let file = disk.open(&name(PackId(7)), Open::CreateNew).unwrap();
    file.write_at(0, bytes).unwrap();
    store
}

fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

/// The directory and length of the batch at `at`, as docs/format.md says.
fn batch(bytes: &[u8], at: usize) -> (usize, usize, usize) {
    let number = |field: usize| {
        let bytes = bytes[at + field..at + field + 8].try_into().unwrap();
        usize::try_from(u64::from_le_bytes(bytes)).unwrap()
    };
    (number(64), number(72), number(40))
}

#[test]
fn headers_and_directories_below_the_mark_are_checked_by_an_adoption() {
    let written = written();
    let first = 2 * PAGE;
    let second = usize::try_from(written.first.len).unwrap();
    let mut places: Vec<usize> = Vec::new();
    for page in [0, first, second] {
        // All of the sector that says something, and some of the rest.
        places.extend(page..page + 512);
        places.extend((page + 512..page + PAGE).step_by(97));
    }
    for at in [first, second] {
        let (directory, entries, _) = batch(&written.open, at);
        places.extend(directory..directory + entries * 48);
    }
    for at in places {
        let store = store_with(&flip(&written.open, at * 8 + at % 8));
        match store.adopt(written.mark) {
            Err(StoreError::Damaged { path, .. }) => assert_eq!(path, name(PackId(7))),
            other => panic!("byte {at}: {other:?}"),
        }
        assert!(!store.has_sealed(PackId(7)));
    }
}

#[test]
fn damage_behind_the_mark_is_nobodys_business() {
    let written = written();
    let second = usize::try_from(written.first.len).unwrap();
    for at in second..second + 512 {
        let store = store_with(&flip(&written.open, at * 8));
        store.adopt(written.first).unwrap();
    }
}

#[test]
fn a_mark_that_no_batch_ends_at_is_refused() {
    let written = written();
    for len in (0..written.mark.len + 3 * 4096).step_by(2048) {
        let store = store_with(&written.open);
        let mark = PackMark {
            pack: PackId(7),
            len,
        };
        let fine = len == written.mark.len || len == written.first.len || len == 8192;
        assert_eq!(store.adopt(mark).is_ok(), fine, "{len}");
    }
    for cut in (0..written.open.len()).step_by(2048) {
        let store = store_with(&written.open[..cut]);
        assert!(store.adopt(written.mark).is_err(), "cut at {cut}");
    }
    let missing = PackMark {
        pack: PackId(8),
        len: 8192,
    };
    assert!(matches!(
        store_with(&written.open).adopt(missing),
        Err(StoreError::Missing { .. })
    ));
}

#[test]
fn header_and_seal_are_checked_when_a_sealed_pack_is_opened() {
    let written = written();
    for at in (0..2 * PAGE).filter(|at| at % PAGE < 512 || at % 97 == 0) {
        let store = store_with(&flip(&written.sealed, at * 8 + at % 8));
        assert!(
            matches!(
                store.sealed_file(PackId(7)),
                Err(StoreError::Damaged { .. })
            ),
            "byte {at}"
        );
        // And named by whoever needs it, not taken for absent.
        let id = written.twin.blocks.keys().next().unwrap();
        let mut out = vec![0; PAGE];
        match store.read_block(id, &mut out) {
            Err(ReadError::Store { source, .. }) => {
                assert!(matches!(source, StoreError::Damaged { .. }));
            }
            other => panic!("byte {at}: {other:?}"),
        }
        assert!(matches!(
            store.node(*written.twin.nodes.keys().next().unwrap()),
            Err(NodeReadError::Damaged { .. })
        ));
        assert_eq!(store.locate(id).unwrap(), None);
    }
}

#[test]
fn a_damaged_index_is_made_again_and_damage_below_it_is_named() {
    let written = written();
    let index = usize::try_from(written.mark.len).unwrap();
    for at in (index..written.sealed.len()).step_by(3) {
        written
            .twin
            .check(&store_with(&flip(&written.sealed, at * 8)));
    }
    for cut in (index..written.sealed.len()).step_by(501) {
        written.twin.check(&store_with(&written.sealed[..cut]));
    }
    let cut = store_with(&written.sealed[..index - 1]);
    assert!(matches!(
        cut.sealed_file(PackId(7)),
        Err(StoreError::Damaged { .. })
    ));

    // Index and directory both: there is nothing to make it from.
    let (directory, ..) = batch(&written.sealed, 2 * PAGE);
    let both = flip(&flip(&written.sealed, directory * 8), (index + 100) * 8);
    let mut out = vec![0; PAGE];
    for id in written.twin.blocks.keys() {
        assert!(matches!(
            store_with(&both).read_block(id, &mut out),
            Err(ReadError::Store { .. })
        ));
    }
}

#[test]
fn a_flipped_bit_in_a_block_or_node_is_found_by_the_read_that_copies() {
    let written = written();
    let healthy = store_with(&written.sealed);
    for (id, bytes) in &written.twin.blocks {
        let place = healthy.locate(id).unwrap().unwrap();
        let at = usize::try_from(place.offset).unwrap();
        for bit in (0..bytes.len() * 8).step_by(1009) {
            let store = store_with(&flip(&written.sealed, at * 8 + bit));
            let mut out = vec![0; bytes.len()];
            match store.read_block(id, &mut out) {
                Err(ReadError::Damaged { path, offset, .. }) => {
                    assert_eq!((path, offset), (name(PackId(7)), place.offset));
                }
                other => panic!("bit {bit}: {other:?}"),
            }
        }
    }
    let (directory, ..) = batch(&written.sealed, 2 * PAGE);
    let bytes = paint(90, 300);
    for at in directory - 304..directory - 4 {
        let store = store_with(&flip(&written.sealed, at * 8));
        assert!(matches!(
            store.node(NodeId::of(&bytes)),
            Err(NodeReadError::Damaged { .. })
        ));
    }
    assert!(matches!(
        healthy.read_block(&BlockId::of(b"?"), &mut [0; PAGE]),
        Err(ReadError::Absent { .. })
    ));
    let id = written.twin.blocks.keys().next().unwrap();
    assert!(matches!(
        healthy.read_block(id, &mut [0; 8]),
        Err(ReadError::Length { .. })
    ));
}

#[test]
fn a_store_from_the_future_is_refused_by_name() {
    let try_format = |text: &str| {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        disk.create_dir_all("/store".as_ref()).unwrap();
        let file = disk.open("/store/format".as_ref(), Open::Create).unwrap();
        file.write_at(0, text.as_bytes()).unwrap();
        Store::open(disk, "/store".into())
    };
    try_format("segvm store\nversion 1\n").unwrap();
    assert!(matches!(
        try_format("segvm store\nversion 2\n"),
        Err(StoreError::Future { version: 2, .. })
    ));
    match try_format("segvm store\nversion 1\nfeature time-travel\n") {
        Err(StoreError::UnknownFeature { feature, .. }) => assert_eq!(feature, "time-travel"),
        other => panic!("{other:?}"),
    }
    for bad in [
        "",
        "segvm",
        "segvm store\n",
        "segvm store\nversion 0\n",
        "segvm store\nversion 1\nx\n",
    ] {
        assert!(
            matches!(try_format(bad), Err(StoreError::Damaged { .. })),
            "{bad:?}"
        );
    }
}
