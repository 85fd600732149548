//! Windows written again while the program runs: part of no checkpoint before the next one has made them durable.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use segvm::{CheckpointError, Saved};
use segvm_blockcache::disk::{CrashDisk, Disk, Open};

use crate::harness::{Ending, Life, PAGE, PAGES, differs, differs_when_saved, map_is_of_use};

/// How long all packs are together.
fn stored(disk: &CrashDisk) -> u64 {
    let packs = Path::new("/store/packs");
    let names = disk.list(packs).unwrap();
    let len = |name: &String| {
        disk.open(&packs.join(name), Open::Read)
            .unwrap()
            .len()
            .unwrap()
    };
    names.iter().map(len).sum()
}

/// A checkpoint that leaves the segment in pieces, and another one when its windows have been written again: the session's thread
/// does one after the other.
fn twice(life: &mut Life) -> [Result<Saved, CheckpointError>; 2] {
    let first = life.session.start_checkpoint().unwrap().wait();
    life.put(7, 1);
    life.put(PAGES - 2, 1);
    [first, life.session.start_checkpoint().unwrap().wait()]
}

/// As [`twice`], but the pack is completed for a branch before any checkpoint has made durable what was laid out.
fn once_and_a_branch(life: &mut Life) -> bool {
    let first = life.session.start_checkpoint().unwrap().wait();
    let wait_only = Arc::new(AtomicBool::new(true));
    let hook = Arc::clone(&wait_only);
    life.session.on_flush("not now", move |_| {
        let refused = hook.load(Ordering::Relaxed);
        if refused {
            Err("only waited for")
        } else {
            Ok(())
        }
    });
    let none = life.session.start_checkpoint().unwrap().wait();
    assert!(matches!(none.unwrap_err(), CheckpointError::Hook(_)));
    wait_only.store(false, Ordering::Relaxed);
    first.is_ok() && life.session.branch("branch").is_ok()
}

#[test]
fn a_pack_that_cannot_be_completed_holds_nothing_that_is_needed() {
    let mut life = Life::begin();
    let before = life.disk.operations();
    assert!(once_and_a_branch(&mut life));
    let operations = life.disk.operations() - before;
    let mut failed = 0;
    for nth in 0..operations {
        let mut life = Life::begin();
        life.disk.fail_operation(before + nth, 5);
        failed += u64::from(!once_and_a_branch(&mut life));
        let when = format!("operation {nth} of {operations} failed");
        let Life {
            disk,
            session,
            model,
            ..
        } = life;
        let differs = differs_when_saved(&when, Ending::Suspend, session, &disk, &model);
        assert_eq!(differs, None, "{when}: not everything came back");
        assert!(
            map_is_of_use(&disk),
            "{when}: the map names what was never durable"
        );
    }
    assert!(failed > 10, "only {failed} of {operations} failed");
}

#[test]
fn a_failure_between_laying_out_and_the_next_checkpoint_loses_nothing() {
    let mut life = Life::begin();
    let before = life.disk.operations();
    assert!(twice(&mut life).iter().all(Result::is_ok));
    let operations = life.disk.operations() - before;
    let all = (PAGES * PAGE) as u64;
    assert!(
        stored(&life.disk) > all + (4 << 20),
        "nothing was laid out beside the program"
    );
    let mut failed = 0;
    for nth in 0..operations {
        let how = [Ending::Checkpoint, Ending::Suspend][nth as usize % 2];
        let mut life = Life::begin();
        life.disk.fail_operation(before + nth, 5);
        let outcomes = twice(&mut life);
        failed += outcomes.iter().filter(|done| done.is_err()).count();
        assert_eq!(
            differs(&life.segment, &life.model),
            None,
            "{nth}: in memory"
        );
        let when = format!("operation {nth} of {operations} failed ({outcomes:?})");
        let Life {
            disk,
            session,
            model,
            ..
        } = life;
        let differs = differs_when_saved(&when, how, session, &disk, &model);
        assert_eq!(differs, None, "{when}: not everything came back");
        assert!(
            map_is_of_use(&disk),
            "{when}: the map names what was never durable"
        );
    }
    assert!(
        failed as u64 > operations / 2,
        "only {failed} checkpoints failed"
    );
}
