//! Whatever is put into a pack is found again: by its writer, after an adoption at each mark, after the seal.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod pack_support;

use std::sync::Arc;

use proptest::prelude::*;
use segvm_blockcache::{
    NodeId, NodeReadError, NodeSink, NodeSource, PackMark, ReadError, WriterOptions,
    disk::{Disk, MemDisk},
};

use pack_support::{Twin, paint, put, store};

#[derive(Clone, Debug)]
enum Op {
    /// Seeds of blocks to be put; `None` drops one after it was filled in.
    Put(u32, Vec<Option<u64>>),
    Node(u64, usize),
    Flush,
    Sync,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (12_u32..19, prop::collection::vec(prop::option::weighted(0.8, 0_u64..500), 1..9))
            .prop_map(|(log2, seeds)| Op::Put(log2, seeds)),
        2 => (0_u64..500, 1_usize..5000).prop_map(|(seed, len)| Op::Node(seed, len)),
        1 => Just(Op::Flush),
        1 => Just(Op::Sync),
    ]
}

/// A disk with nothing but one pack file, as it was at some moment.
fn copy_of(disk: &Arc<dyn Disk>, path: &std::path::Path) -> Arc<dyn Disk> {
    use segvm_blockcache::disk::Open;
    let copy: Arc<dyn Disk> = Arc::new(MemDisk::new());
    store(&copy);
    let from = disk.open(path, Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(from.len().unwrap()).unwrap()];
    from.read_at(0, &mut bytes).unwrap();
    copy.open(path, Open::CreateNew)
        .unwrap()
        .write_at(0, &bytes)
        .unwrap();
    copy
}

fn run(ops: &[Op]) {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let live = store(&disk);
    let mut writer = live.writer(WriterOptions::default());
    let mut twin = Twin::default();
    let mut marks: Vec<(PackMark, Twin, Arc<dyn Disk>)> = Vec::new();
    for op in ops {
        match op {
            Op::Put(log2, seeds) => put(&mut writer, *log2, seeds, &mut twin).unwrap(),
            Op::Node(seed, len) => {
                let bytes = paint(*seed, *len);
                let id = NodeId::of(&bytes);
                writer.put_node(id, &bytes).unwrap();
                twin.nodes.insert(id, bytes);
            }
            Op::Flush => {
                writer.flush().unwrap();
                for (id, bytes) in &twin.blocks {
                    let mut out = vec![0; bytes.len()];
                    let place = writer.locate(id).unwrap();
                    live.read_place(id, place, &mut out).unwrap();
                    assert_eq!(&out, bytes);
                }
            }
            Op::Sync => {
                let written = writer.bytes_written();
                if let Some(mark) = writer.sync().unwrap() {
                    assert_eq!(writer.mark(), Some(mark));
                    twin.check(&live);
                    let path = writer.path().unwrap();
                    marks.push((mark, twin.clone(), copy_of(&disk, &path)));
                }
                let once = writer.bytes_written();
                writer.sync().unwrap();
                assert_eq!(writer.bytes_written(), once);
                assert!(once >= written);
            }
        }
    }
    let unsealed = writer.path().map(|path| {
        writer.flush().unwrap();
        copy_of(&disk, &path)
    });
    let pack = writer.seal().unwrap();
    twin.check(&live);
    match pack {
        None => assert!(disk.list(live.packs_dir()).unwrap().is_empty()),
        Some(pack) => {
            assert!(live.has_sealed(pack));
            twin.check(&store(&disk));
            for mark in &marks {
                store(&disk).adopt(mark.0).unwrap();
            }
        }
    }
    for (mark, twin, disk) in &marks {
        // The file as it was when the mark was made, and as it was at the end: with rubble behind the mark.
        let path = live.pack_path(mark.pack);
        for disk in [disk, &copy_of(unsealed.as_ref().unwrap(), &path)] {
            let store = store(disk);
            assert!(!store.has_sealed(mark.pack));
            store.adopt(*mark).unwrap();
            twin.check(&store);
            assert!(store.has_sealed(mark.pack));
            let again = self::store(disk);
            again.adopt(*mark).unwrap();
            twin.check(&again);
            for id in twin.blocks.keys() {
                let absent = NodeId::from_bytes(*id.as_bytes());
                assert!(matches!(
                    again.node(absent),
                    Err(NodeReadError::Absent { .. })
                ));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_put_is_found_again(ops in prop::collection::vec(op(), 1..24)) {
        run(&ops);
    }
}

#[test]
fn blocks_of_every_size_over_many_buffers() {
    let all: Vec<_> = (0..40).map(Some).collect();
    let mut ops: Vec<_> = (12..=21)
        .map(|log2| Op::Put(log2, all[..8].to_vec()))
        .collect();
    ops.extend([Op::Node(1, 900), Op::Sync]);
    ops.extend(
        (12..=21)
            .rev()
            .map(|log2| Op::Put(log2, all[8..12].to_vec())),
    );
    ops.extend([Op::Flush, Op::Sync, Op::Put(14, vec![None, None]), Op::Sync]);
    run(&ops);
}

#[test]
fn a_batch_with_no_mark_is_nobodys() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let live = store(&disk);
    let mut writer = live.writer(WriterOptions::default());
    let mut twin = Twin::default();
    put(&mut writer, 14, &[Some(1)], &mut twin).unwrap();
    let mark = writer.sync().unwrap().unwrap();
    let durable = twin.clone();
    put(&mut writer, 14, &[Some(2)], &mut twin).unwrap();
    let id = *twin
        .blocks
        .keys()
        .find(|id| !durable.blocks.contains_key(*id))
        .unwrap();
    // Not for others before it is durable.
    assert!(writer.locate(&id).is_some());
    assert_eq!(live.locate(&id).unwrap(), None);
    let place = writer.locate(&id).unwrap();
    let mut out = vec![0; 1 << 14];
    assert!(matches!(
        live.read_place(&id, place, &mut out),
        Err(ReadError::Unwritten { .. })
    ));
    // Durable, but the crash came before the record that would have carried the new mark.
    writer.sync().unwrap().unwrap();
    assert!(live.locate(&id).unwrap().is_some());
    drop(writer);
    let after = store(&disk);
    after.adopt(mark).unwrap();
    durable.check(&after);
    assert!(matches!(
        after.read_block(&id, &mut out),
        Err(ReadError::Absent { .. })
    ));
}

#[test]
fn a_writer_that_is_dropped_without_a_mark_leaves_no_file() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let live = store(&disk);
    let mut writer = live.writer(WriterOptions::default());
    put(
        &mut writer,
        21,
        &[Some(1), Some(2), Some(3)],
        &mut Twin::default(),
    )
    .unwrap();
    assert_eq!(disk.list(live.packs_dir()).unwrap().len(), 1);
    drop(writer);
    assert_eq!(disk.list(live.packs_dir()).unwrap().len(), 0);
}
