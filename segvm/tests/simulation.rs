//! Whole sessions on a model kernel and a crashing disk: the power fails at every operation, every call fails once.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{path::Path, sync::Arc};

use segvm::{OpenError, Rounds, Segment, SegmentOptions, Session, SessionOptions, World};
use segvm_blockcache::{BlockSize, disk::CrashDisk};
use segvm_os::ModelKernel;

const LEN: usize = 512 << 10;

fn open(kernel: &Arc<ModelKernel>, disk: &CrashDisk) -> Result<(Session, Segment), String> {
    let options = process(kernel, disk);
    with(&options, "image").map_err(|error| error.to_string())
}

fn process(kernel: &Arc<ModelKernel>, disk: &CrashDisk) -> SessionOptions {
    let world = World::with(Arc::<ModelKernel>::clone(kernel), Arc::new(disk.clone()));
    SessionOptions::new()
        .store(Path::new("/store"))
        .world(world)
}

fn with(options: &SessionOptions, image: &str) -> Result<(Session, Segment), OpenError> {
    let session = options.open(image)?;
    let small = SegmentOptions::new()
        .block_size(BlockSize::MIN)
        .reserve(LEN);
    let segment = session.segment_with("memory", LEN, &small)?;
    Ok((session, segment))
}

fn content(segment: &Segment) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    segment.read(0, &mut bytes).unwrap();
    bytes
}

/// What one step of the history writes, in the segment and in the model.
fn step(n: usize, segment: &Segment, model: &mut [u8]) -> Result<(), String> {
    for k in 0..3 {
        let at = (n * 77_003 + k * 130_007) % (LEN - 9000);
        let bytes: Vec<u8> = (0..1 + (n * 3001 + k) % 9000)
            .map(|i| ((n + k + i) % 251) as u8)
            .collect();
        segment
            .write(at, &bytes)
            .map_err(|error| error.to_string())?;
        model[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    Ok(())
}

/// The history: what every checkpoint should hold, newest last, as far as it got; and how many were acknowledged.
#[derive(Default)]
struct History {
    states: Vec<Vec<u8>>,
    acknowledged: usize,
}

fn live(disk: &CrashDisk, history: &mut History) -> Result<(), String> {
    let mut model = vec![0; LEN];
    for session_number in 0..2 {
        let (session, segment) = open(&Arc::new(ModelKernel::new()), disk)?;
        for n in 0..3 {
            step(session_number * 10 + n, &segment, &mut model)?;
            history.states.push(model.clone());
            let rounds = if n == 1 { Rounds::Off } else { Rounds::Auto };
            session
                .checkpoint_with(rounds)
                .map_err(|error| error.to_string())?;
            history.acknowledged = history.states.len();
        }
        step(session_number * 10 + 7, &segment, &mut model)?;
        history.states.push(model.clone());
        session.suspend().map_err(|error| error.to_string())?;
        history.acknowledged = history.states.len();
    }
    Ok(())
}

#[test]
fn a_power_cut_at_any_operation_leaves_an_acknowledged_checkpoint_or_a_newer_whole_one() {
    let quiet = CrashDisk::new(1);
    let mut all = History::default();
    live(&quiet, &mut all).unwrap();
    let operations = quiet.operations();
    assert!(operations > 50, "{operations} operations are no history");
    let mut cut_short = 0;
    for at in 0..operations {
        for seed in [3, 4] {
            let disk = CrashDisk::new(seed * 1000 + at);
            disk.power_off_at(at);
            let mut history = History::default();
            // The last operations only spare the next open some work: their failure is no error.
            cut_short += u64::from(live(&disk, &mut history).is_err());
            let left = disk.crash();
            let (_session, segment) = open(&Arc::new(ModelKernel::new()), &left)
                .unwrap_or_else(|error| panic!("power cut at {at}, seed {seed}: {error}"));
            let found = content(&segment);
            let allowed = &history.states[history.acknowledged.saturating_sub(1)..];
            let empty = history.acknowledged == 0 && found.iter().all(|&byte| byte == 0);
            assert!(
                empty || allowed.contains(&found),
                "power cut at {at}, seed {seed}: {} were durable, and something else came back",
                history.acknowledged
            );
        }
    }
    assert!(
        cut_short > operations,
        "only {cut_short} of {} histories were cut short",
        2 * operations
    );
}

/// After the failure of one operation of the disk: an error or none, nothing lost, and the next checkpoint has it all.
#[test]
fn any_failing_disk_operation_loses_nothing() {
    let quiet = CrashDisk::new(1);
    live(&quiet, &mut History::default()).unwrap();
    let operations = quiet.operations();
    for errno in [28, 5] {
        for at in 0..operations {
            let disk = CrashDisk::new(1);
            disk.fail_operation(at, errno);
            let mut history = History::default();
            let error = live(&disk, &mut history).err();
            let (session, segment) =
                open(&Arc::new(ModelKernel::new()), &disk).unwrap_or_else(|second| {
                    panic!("errno {errno} at {at} ({error:?}): opening failed too: {second}")
                });
            let mut found = content(&segment);
            let allowed = &history.states[history.acknowledged.saturating_sub(1)..];
            let empty = history.acknowledged == 0 && found.iter().all(|&byte| byte == 0);
            assert!(
                empty || allowed.contains(&found),
                "errno {errno} at {at}: {error:?}"
            );
            step(99, &segment, &mut found).unwrap();
            session.checkpoint().unwrap();
            drop(session);
            let (_session, segment) = open(&Arc::new(ModelKernel::new()), &disk).unwrap();
            assert!(
                content(&segment) == found,
                "errno {errno} at {at}: the next checkpoint is not whole"
            );
        }
    }
}

/// A session goes on after a failed checkpoint, and the next one includes what the failed one would have saved.
#[test]
fn a_session_goes_on_after_a_full_disk() {
    let disk = CrashDisk::new(9);
    let kernel = Arc::new(ModelKernel::new());
    let (session, segment) = open(&kernel, &disk).unwrap();
    let mut model = vec![0; LEN];
    step(1, &segment, &mut model).unwrap();
    session.checkpoint().unwrap();
    for room in [0, 4096, 10_000, 20_000] {
        step(room + 2, &segment, &mut model).unwrap();
        disk.fill_after(Some(room));
        let error = session.checkpoint().unwrap_err();
        assert!(error.to_string().contains("/store"), "no path in: {error}");
        disk.fill_after(None);
        assert!(content(&segment) == model, "the failure changed memory");
        let saved = session.checkpoint().unwrap();
        assert!(saved.changed);
        let mirror = disk.crash();
        let (_second, copy) = open(&Arc::new(ModelKernel::new()), &mirror).unwrap();
        assert!(
            content(&copy) == model,
            "with room for {room} bytes: not all came back"
        );
    }
}

/// Every call on memory fails once; a scan that fails has armed half of its range.
#[test]
fn any_failing_call_on_memory_loses_nothing() {
    let count = {
        let kernel = Arc::new(ModelKernel::new());
        let (session, segment) = open(&kernel, &CrashDisk::new(1)).unwrap();
        run(&session, &segment, &mut vec![0; LEN]).unwrap();
        kernel.calls()
    };
    assert!(count > 20, "{count} calls are no history");
    for nth in 1..=count {
        let disk = CrashDisk::new(1);
        let kernel = Arc::new(ModelKernel::new());
        kernel.fail_nth(nth, 12);
        let Ok((session, segment)) = open(&kernel, &disk) else {
            continue;
        };
        let mut model = vec![0; LEN];
        let outcome = run(&session, &segment, &mut model);
        kernel.stop_failing();
        model = content(&segment);
        session
            .checkpoint()
            .unwrap_or_else(|error| panic!("after call {nth} failed ({outcome:?}): {error}"));
        drop(session);
        let (_session, segment) = open(&Arc::new(ModelKernel::new()), &disk).unwrap();
        assert!(
            content(&segment) == model,
            "call {nth} failed ({outcome:?}), and something was lost"
        );
    }
}

fn run(session: &Session, segment: &Segment, model: &mut [u8]) -> Result<(), String> {
    for n in 0..4 {
        step(n, segment, model)?;
        let rounds = if n % 2 == 0 {
            Rounds::Auto
        } else {
            Rounds::Off
        };
        session
            .checkpoint_with(rounds)
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// One session, killed (not cut off: the machine goes on) in the middle of operation `at`. Answers what its newest checkpoint
/// holds that was promised, if it came that far.
fn killed_at(disk: &CrashDisk, at: u64) -> Option<Vec<u8>> {
    disk.power_off_at(at);
    let mut history = History::default();
    let mut live = || -> Result<(), String> {
        let mut model = vec![0; LEN];
        let (session, segment) = open(&Arc::new(ModelKernel::new()), disk)?;
        // Long enough in one piece to be shared.
        for (at, block) in model.chunks_mut(4096).enumerate() {
            block.fill(1 + at as u8);
        }
        segment
            .write(0, &model)
            .map_err(|error| error.to_string())?;
        for n in 0..2 {
            step(n, &segment, &mut model)?;
            session.checkpoint().map_err(|error| error.to_string())?;
            history.states.push(model.clone());
        }
        session.suspend().map_err(|error| error.to_string())?;
        Ok(())
    };
    let _killed = live();
    // Whatever the dead process tried to do at its end, it had no power for.
    disk.power_off_at(u64::MAX);
    history.states.pop()
}

/// What makes a record that names what is there already and writes no block.
type Publish = fn(&CrashDisk) -> Result<&'static str, OpenError>;

/// A process died somewhere around the sync of its pack's seal; the next one finds the pack sealed, and publishes without a
/// checkpoint of anything new. Then the power goes: what it published is there, whoever opens it.
#[test]
fn what_is_published_beside_a_checkpoint_relies_on_no_seal_that_can_be_lost() {
    let branch: Publish = |disk| {
        let (session, _segment) = with(&process(&Arc::new(ModelKernel::new()), disk), "image")?;
        session.branch("other").map(|_| "other")
    };
    let branch_here: Publish = |disk| {
        let (session, _segment) = with(&process(&Arc::new(ModelKernel::new()), disk), "image")?;
        session.branch_here("other").map(|_| "other")
    };
    let restore: Publish = |disk| {
        let (session, _segment) = with(&process(&Arc::new(ModelKernel::new()), disk), "image")?;
        session.restore("-0")?;
        Ok(session.checkpoint().map(|_| "image")?)
    };
    let reader: Publish = |disk| {
        let options = process(&Arc::new(ModelKernel::new()), disk).reader();
        let (session, _segment) = with(&options, "image")?;
        session.branch("other").map(|_| "other")
    };
    let reader_here: Publish = |disk| {
        let options = process(&Arc::new(ModelKernel::new()), disk).reader();
        let (session, _segment) = with(&options, "image")?;
        session.branch_here("other").map(|_| "other")
    };
    // The same content, as an image that never heard of the first one: it shares the blocks.
    let share: Publish = |disk| {
        let (image, memory) = with(
            &process(&Arc::new(ModelKernel::new()), disk).reader(),
            "image",
        )?;
        let (session, segment) = with(&process(&Arc::new(ModelKernel::new()), disk), "other")?;
        segment.write(0, &content(&memory)).unwrap();
        drop(image);
        Ok(session.checkpoint().map(|_| "other")?)
    };
    let all = [
        ("branch", branch),
        ("branch_here", branch_here),
        ("restore", restore),
        ("a reader's branch", reader),
        ("a reader's branch_here", reader_here),
        ("sharing", share),
    ];
    let quiet = CrashDisk::new(1);
    killed_at(&quiet, u64::MAX).unwrap();
    let operations = quiet.operations();
    for (name, publish) in all {
        let mut published = 0;
        // The seal is among the last.
        for at in operations - 8..=operations {
            for seed in 0..4 {
                let disk = CrashDisk::new(seed * 1000 + at);
                let Some(wanted) = killed_at(&disk, at) else {
                    continue;
                };
                let image = match publish(&disk) {
                    Ok(image) => image,
                    Err(OpenError::Unsealed { .. }) => continue,
                    Err(error) => panic!("killed at {at}, then {name}: {error}"),
                };
                published += 1;
                for _ in 0..4 {
                    let left = disk.crash();
                    let options = process(&Arc::new(ModelKernel::new()), &left);
                    let (_session, segment) = with(&options, image)
                        .unwrap_or_else(|error| panic!("killed at {at}, {name}, cut: {error}"));
                    assert!(content(&segment) == wanted, "killed at {at}, {name}, cut");
                }
            }
        }
        assert!(published > 10, "{name}: only {published} were published");
    }
}
