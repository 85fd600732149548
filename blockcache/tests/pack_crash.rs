//! The power goes off in, or something fails at, every single operation: what a mark promised is there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod pack_support;

use std::sync::Arc;

use segvm_blockcache::{
    NodeId, NodeSink, PackError, PackMark, Store, WriterOptions,
    disk::{CrashDisk, Disk},
};

use pack_support::{Twin, paint, put, store};

/// What the last call that succeeded promised.
#[derive(Default)]
struct Promised {
    mark: Option<PackMark>,
    durable: Twin,
    sealed: bool,
}

/// One session: three checkpoints and the seal. Ends at the first error.
fn session(live: &Arc<Store>, promised: &mut Promised) -> Result<(), PackError> {
    let mut writer = live.writer(WriterOptions::default());
    let mut twin = Twin::default();
    for round in 0..3_u64 {
        let seeds: Vec<_> = (0..9).map(|n| (n != 4).then_some(round * 10 + n)).collect();
        put(&mut writer, 12, &seeds, &mut twin)?;
        if round == 1 {
            // More than one buffer, so that the thread has work and the header is written alone.
            put(&mut writer, 20, &[Some(100), Some(101)], &mut twin)?;
            writer.flush()?;
        }
        let bytes = paint(round, 700);
        let id = NodeId::of(&bytes);
        if let Err(error) = writer.put_node(id, &bytes) {
            return Err(*error.source.downcast().unwrap());
        }
        twin.nodes.insert(id, bytes);
        promised.mark = writer.sync()?;
        promised.durable = twin.clone();
    }
    writer.seal()?;
    promised.sealed = true;
    Ok(())
}

/// How many operations the store alone takes.
fn making() -> u64 {
    let disk = CrashDisk::new(0);
    store(&(Arc::new(disk.clone()) as Arc<dyn Disk>));
    disk.operations()
}

/// How many operations store and session take.
fn operations() -> u64 {
    let disk = CrashDisk::new(0);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    session(&store(&shared), &mut Promised::default()).unwrap();
    disk.operations()
}

fn check_after(disk: CrashDisk, promised: &Promised) {
    let shared: Arc<dyn Disk> = Arc::new(disk);
    let after = store(&shared);
    if promised.sealed {
        // The seal is durable: nobody has to know the mark.
        promised.durable.check(&after);
    }
    let Some(mark) = promised.mark else {
        return;
    };
    after.adopt(mark).unwrap();
    promised.durable.check(&after);
    promised.durable.check(&store(&shared));
}

#[test]
fn power_cut_in_every_operation() {
    let all = operations();
    assert!(all > 20, "{all} operations");
    for seed in 0..3 {
        for at in making()..all {
            let disk = CrashDisk::new(seed * 1000 + at);
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let live = store(&shared);
            disk.power_off_at(at);
            let mut promised = Promised::default();
            session(&live, &mut promised).unwrap_err();
            for _ in 0..3 {
                check_after(disk.crash(), &promised);
            }
        }
    }
}

#[test]
fn power_cut_while_a_store_is_made() {
    for seed in 0..20 {
        for at in 0..30 {
            let disk = CrashDisk::new(seed * 100 + at);
            disk.power_off_at(at);
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let made = Store::open(shared, "/store".into()).is_ok();
            assert!(made == (at >= disk.operations()), "operation {at}");
            let after: Arc<dyn Disk> = Arc::new(disk.crash());
            if made {
                assert!(after.exists("/store/format".as_ref()).unwrap());
            }
            store(&after);
        }
    }
}

#[test]
fn power_cut_in_every_operation_of_an_adoption() {
    let mut cuts = 0;
    for seed in 0..4 {
        for at in 0.. {
            let disk = CrashDisk::new(seed * 1000 + at);
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let live = store(&shared);
            // Killed before the seal, with rubble behind the last mark.
            let mut promised = Promised::default();
            disk.power_off_at(operations() - 4);
            session(&live, &mut promised).unwrap_err();
            let mark = promised.mark.unwrap();

            let disk = disk.crash();
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let next = store(&shared);
            disk.power_off_at(disk.operations() + at);
            if next.adopt(mark).is_ok() {
                promised.sealed = true;
                check_after(disk.crash(), &promised);
                break;
            }
            cuts += 1;
            for _ in 0..3 {
                check_after(disk.crash(), &promised);
            }
        }
    }
    assert!(cuts >= 12, "{cuts} cuts");
}

#[test]
fn every_operation_fails_once() {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    for errno in [EIO, ENOSPC] {
        for at in making()..operations() {
            let disk = CrashDisk::new(at);
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let live = store(&shared);
            disk.fail_operation(at, errno);
            let mut promised = Promised::default();
            let Err(error) = session(&live, &mut promised) else {
                // A preallocation: the write decides.
                assert!(promised.sealed);
                continue;
            };
            assert_eq!(
                matches!(error, PackError::Full { .. }),
                errno == ENOSPC,
                "{error}"
            );
            // What was durable is readable, now and after a crash, and the next writer works.
            promised.durable.check(&live);
            check_after(disk.crash(), &promised);
            let mut again = Promised::default();
            session(&live, &mut again).unwrap();
            if let Some(mark) = promised.mark {
                live.adopt(mark).unwrap();
            }
            promised.durable.check(&live);
            again.durable.check(&store(&shared));
        }
    }
}

/// A sync that failed may have lost the seal although the process goes on seeing it: an adoption writes it again.
#[test]
fn a_seal_whose_sync_failed_is_made_again() {
    for seed in 0..40 {
        let disk = CrashDisk::new(seed);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let live = store(&shared);
        disk.fail_operation(operations() - 1, 5);
        let mut promised = Promised::default();
        session(&live, &mut promised).unwrap_err();
        live.adopt(promised.mark.unwrap()).unwrap();
        // From now on nobody needs the mark.
        promised.sealed = true;
        for _ in 0..4 {
            check_after(disk.crash(), &promised);
        }
    }
}

/// Killed between seal and sync, adopted by the next process, which publishes its own mark; then the power goes.
#[test]
fn a_seal_that_a_dead_process_did_not_sync_is_settled_before_its_mark_is_forgotten() {
    for seed in 0..40 {
        let disk = CrashDisk::new(seed);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let mut promised = Promised::default();
        // Nothing is lost here and nobody was told: as good as a kill before the sync.
        let all = operations();
        disk.power_off_at(all - 1);
        session(&store(&shared), &mut promised).unwrap_err();
        disk.power_off_at(u64::MAX);

        let next = store(&shared);
        next.adopt(promised.mark.unwrap()).unwrap();
        let mut writer = next.writer(WriterOptions::default());
        put(&mut writer, 12, &[Some(500)], &mut Twin::default()).unwrap();
        writer.sync().unwrap().unwrap();
        promised.sealed = true;
        for _ in 0..4 {
            check_after(disk.crash(), &promised);
        }
    }
}

#[test]
fn a_full_disk_in_the_middle() {
    for room in (0..2_400_000).step_by(170_000) {
        let disk = CrashDisk::new(room as u64);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let live = store(&shared);
        let mut writer = live.writer(WriterOptions::default());
        let mut twin = Twin::default();
        put(&mut writer, 12, &[Some(1)], &mut twin).unwrap();
        let mark = writer.sync().unwrap().unwrap();

        disk.fill_after(Some(room));
        let mut more = Twin::default();
        let seeds: Vec<_> = (10..170).map(Some).collect();
        let failed = put(&mut writer, 14, &seeds, &mut more)
            .and_then(|()| writer.sync())
            .unwrap_err();
        match &failed {
            PackError::Full { path, wanted, .. } => {
                assert_eq!(Some(path), writer.path().as_ref());
                assert!(*wanted > 0);
            }
            other => panic!("{other}"),
        }
        assert!(matches!(writer.sync(), Err(PackError::Dead { .. })));
        assert!(matches!(
            put(&mut writer, 12, &[Some(2)], &mut more),
            Err(PackError::Dead { .. })
        ));
        assert_eq!(writer.mark(), Some(mark));
        twin.check(&live);
        drop(writer);

        disk.fill_after(None);
        live.adopt(mark).unwrap();
        twin.check(&live);
        twin.check(&store(&shared));
    }
}
