//! Extent maps are caches: missing or broken ones are made again, from tree and packs, and say the same.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod pack_support;

use std::sync::Arc;

use segvm_blockcache::{
    BlockId, BlockIndex, BlockSize, Layout, RebuildError, Store, Tree, TreeId, WriterOptions,
    disk::{Disk, MemDisk, Open},
};

use pack_support::{Twin, paint, put, store};

/// A segment of 100 blocks in two packs, with a hole and a block that occurs twice.
fn segment(disk: &Arc<dyn Disk>) -> (Arc<Store>, TreeId, Layout) {
    let live = store(disk);
    let size = BlockSize::MIN;
    let mut layout = Layout::new(size);
    let mut tree = Tree::new(size, 100 * 4096).unwrap();
    for half in 0..2 {
        let mut writer = live.writer(WriterOptions::default());
        for at in half * 50..half * 50 + 50 {
            if at == 30 {
                continue;
            }
            let seed = if at == 70 { 3 } else { at };
            let id = BlockId::of(&paint(seed, 4096));
            if writer.locate(&id).is_none() {
                put(&mut writer, 12, &[Some(seed)], &mut Twin::default()).unwrap();
            }
            tree.set(&*live, BlockIndex(at), Some(id)).unwrap();
            layout.set(BlockIndex(at), writer.locate(&id));
        }
        tree.seal(&mut writer).unwrap();
        writer.seal().unwrap();
    }
    (live, tree.id().unwrap(), layout)
}

#[test]
fn a_saved_map_is_loaded_and_a_lost_one_is_made_again() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let (live, tree, layout) = segment(&disk);
    assert_eq!(layout.packs().len(), 2);
    assert_eq!(layout.len(), 5, "0..30, 31..50, 50..70, 70, 71..100");
    assert_eq!(live.load_extents(tree), None);
    live.save_extents(tree, &layout).unwrap();
    live.save_extents(tree, &layout).unwrap();
    assert_eq!(store(&disk).load_extents(tree), Some(layout.clone()));

    let path = format!("/store/extents/{tree}.ext");
    let file = disk.open(path.as_ref(), Open::Write).unwrap();
    file.write_at(70, &[0xff]).unwrap();
    assert_eq!(live.load_extents(tree), None);
    assert_eq!(store(&disk).rebuild_extents(tree).unwrap(), layout);

    live.forget_extents(tree).unwrap();
    live.forget_extents(tree).unwrap();
    assert_eq!(disk.list("/store/extents".as_ref()).unwrap().len(), 0);
}

#[test]
fn a_block_that_is_not_here_is_absent_not_damaged() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let (live, tree, layout) = segment(&disk);
    let first = layout.get(BlockIndex(0)).unwrap().pack;
    disk.remove(&live.pack_path(first)).unwrap();
    match store(&disk).rebuild_extents(tree) {
        // The node above it is in the second pack, as the tree changed there.
        Err(RebuildError::Absent { index, id, .. }) => {
            assert_eq!(index, BlockIndex(0));
            assert_eq!(id, BlockId::of(&paint(0, 4096)));
        }
        Err(RebuildError::Tree(_)) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn more_packs_than_a_store_keeps_open() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let live = store(&disk);
    let mut twin = Twin::default();
    let mut packs = Vec::new();
    for seed in 0..150 {
        let mut writer = live.writer(WriterOptions::default());
        put(&mut writer, 12, &[Some(seed)], &mut twin).unwrap();
        packs.extend(writer.seal().unwrap());
    }
    twin.check(&live);
    let again = store(&disk);
    twin.check(&again);
    for pack in packs.iter().chain(&packs) {
        assert!(again.sealed_file(*pack).unwrap().len().unwrap() > 0);
    }
}

#[test]
fn readers_wait_for_blocks_on_their_way() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let live = store(&disk);
    let mut writer = live.writer(WriterOptions::default());
    let (send, receive) = std::sync::mpsc::channel();
    let reader = std::thread::spawn({
        let live = live.clone();
        move || {
            for (id, place) in receive {
                let mut out = vec![0; 1 << 16];
                live.read_place(&id, place, &mut out).unwrap();
            }
        }
    });
    for seed in 0..200 {
        put(&mut writer, 16, &[Some(seed)], &mut Twin::default()).unwrap();
        let id = BlockId::of(&paint(seed, 1 << 16));
        let place = writer.locate(&id).unwrap();
        writer.flush().unwrap();
        send.send((id, place)).unwrap();
    }
    drop(send);
    reader.join().unwrap();
}
