//! A suspend that lays windows out again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use segvm::{BlockSize, Saved, SegmentOptions, SessionOptions, SuspendError};

use crate::harness::{
    Ending, Life, PAGE, PAGES, calls_to_open, differs, differs_when_opened, differs_when_saved,
};

/// How often each page was copied while nobody may write.
type Copies = Arc<Mutex<BTreeMap<usize, u32>>>;

fn count_copies(life: &Life) -> Copies {
    let copies = Copies::default();
    let (seen, base) = (Arc::clone(&copies), life.segment.as_ptr() as usize);
    life.kernel.on_quiet_copy(move |_, range| {
        let mut seen = seen.lock().unwrap();
        for at in range.windows(PAGE) {
            *seen.entry((at.start() - base) / PAGE).or_default() += 1;
        }
    });
    copies
}

#[test]
fn what_is_laid_out_again_is_what_was_there_in_a_few_pieces() {
    let life = Life::begin();
    let (disk, model) = (life.disk.clone(), life.model.clone());
    let copies = count_copies(&life);
    life.session.suspend().unwrap();
    // Pages that were clean are only looked at to be laid out; those that were not, to be stored before.
    let copies = copies.lock().unwrap();
    assert!(
        (0..PAGES).all(|page| copies.get(&page) == Some(&(1 + page as u32 % 2))),
        "not every page was laid out again from memory"
    );
    assert!(calls_to_open(&disk) < 100, "it lies in many pieces still");
    assert_eq!(differs_when_opened(&disk, &model), None);
}

/// A transfer into the segment that is still in flight when the session ends: what it changes after a block was stored is not in
/// the image, and makes no block lie.
#[test]
fn memory_that_changes_while_it_is_laid_out_is_not_taken_for_what_was_stored() {
    let life = Life::begin();
    let (disk, model) = (life.disk.clone(), life.model.clone());
    let base = life.segment.as_ptr() as usize;
    let struck = Arc::new(Mutex::new(BTreeMap::<usize, u32>::new()));
    let seen = Arc::clone(&struck);
    life.kernel.on_quiet_copy(move |kernel, range| {
        let page = (range.start() - base) / PAGE;
        let mut seen = seen.lock().unwrap();
        let copied = seen.entry(page).or_default();
        *copied += 1;
        // Stored already: at the checkpoint before, or a moment ago.
        if *copied == 1 + page as u32 % 2 && page % 7 < 2 {
            kernel.write(range.start() + 100, b"too late").unwrap();
        }
    });
    life.session.suspend().unwrap();
    let laid_out = struck.lock().unwrap().values().sum::<u32>();
    assert_eq!(laid_out as usize, PAGES + PAGES / 2);
    assert_eq!(differs_when_opened(&disk, &model), None);
    // As the program that does not trust its disk opens it: every hash agrees with what is there.
    let world = segvm::World::with(
        Arc::new(segvm_os::ModelKernel::new()),
        Arc::new(disk.clone()),
    );
    let checked = SessionOptions::new().store("/store").world(world);
    drop(checked.verify(segvm::Verify::All).open("image").unwrap());
}

/// What is left after a suspend that failed: the session, whose memory is as it was, and which saves everything with the next try.
fn goes_on(when: &str, outcome: Result<Saved, SuspendError>, Rest { disk, model }: &Rest) {
    let Err(failed) = outcome else {
        assert_eq!(differs_when_opened(disk, model), None, "{when}");
        return;
    };
    let when = format!("{when} ({})", failed.reason);
    let session = failed.into_session();
    let small = SegmentOptions::new().block_size(BlockSize::MIN);
    let segment = session.segment_with("memory", 0, &small).unwrap();
    assert_eq!(differs(&segment, model), None, "{when}: in memory");
    let how = [Ending::Checkpoint, Ending::Suspend][when.len() % 2];
    let differs = differs_when_saved(&when, how, session, disk, model);
    assert_eq!(differs, None, "{when}: not everything came back");
}

struct Rest {
    disk: segvm_blockcache::disk::CrashDisk,
    model: Vec<u8>,
}

fn rest(life: &Life) -> Rest {
    Rest {
        disk: life.disk.clone(),
        model: life.model.clone(),
    }
}

#[test]
fn any_failing_disk_operation_leaves_the_session_and_its_memory() {
    let life = Life::begin();
    let before = life.disk.operations();
    let disk = life.disk.clone();
    life.session.suspend().unwrap();
    let operations = disk.operations() - before;
    assert!(operations > 10, "{operations} operations lay nothing out");
    let mut failed = 0;
    for nth in 0..operations {
        let errno = [28, 5][nth as usize % 2];
        let life = Life::begin();
        let rest = rest(&life);
        life.disk.fail_operation(before + nth, errno);
        let outcome = life.session.suspend();
        failed += u64::from(outcome.is_err());
        goes_on(&format!("errno {errno} at {nth}"), outcome, &rest);
    }
    assert!(failed > operations / 2, "only {failed} suspends failed");
}

#[test]
fn a_power_cut_leaves_the_checkpoint_before_or_all_of_it() {
    let life = Life::begin();
    let before = life.disk.operations();
    let disk = life.disk.clone();
    let evens: Vec<u8> = life.model.clone();
    life.session.suspend().unwrap();
    let operations = disk.operations() - before;
    for nth in 0..operations {
        let life = Life::begin();
        life.disk.power_off_at(before + nth);
        let disk = life.disk.clone();
        // Dropped or ended, the process is gone.
        let done = life.session.suspend().is_ok();
        let left = disk.crash();
        let (_session, segment) = crate::harness::open(&Arc::default(), &left);
        let mut old = [0; PAGE];
        segment.read(PAGE, &mut old).unwrap();
        let is_old = !done && old == [0; PAGE];
        if is_old {
            let mut bytes = vec![0; PAGES * PAGE];
            segment.read(0, &mut bytes).unwrap();
            let mut odd = bytes.chunks(PAGE).skip(1).step_by(2);
            assert!(odd.all(|page| page == old), "cut at {nth}: a mixture");
            let mut even = bytes.chunks(PAGE).step_by(2).zip(evens.iter().step_by(2));
            assert!(
                even.all(|(page, &byte)| page[PAGE - 1] == byte),
                "cut at {nth}"
            );
        } else {
            assert_eq!(differs(&segment, &evens), None, "cut at {nth}: a mixture");
        }
    }
}

#[test]
fn any_failing_call_on_memory_leaves_the_session_and_its_memory() {
    let life = Life::begin();
    let (kernel, before) = (Arc::clone(&life.kernel), life.kernel.calls());
    life.session.suspend().unwrap();
    let calls = kernel.calls() - before;
    assert!(calls > PAGES as u64, "{calls} calls lay nothing out");
    let mut failed = 0;
    // The first of everything, and a sample of the thousands of copies that are alike.
    for nth in (1..=calls).filter(|nth| nth % 97 == 0 || *nth < 8 || calls - nth < 4) {
        let life = Life::begin();
        let (rest, kernel) = (rest(&life), Arc::clone(&life.kernel));
        kernel.fail_nth(nth, 12);
        let outcome = life.session.suspend();
        kernel.stop_failing();
        failed += u32::from(outcome.is_err());
        goes_on(&format!("call {nth} of {calls}"), outcome, &rest);
    }
    assert!(failed > 20, "only {failed} suspends failed");
}
