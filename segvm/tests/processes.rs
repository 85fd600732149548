//! What becomes of a session where processes, threads and executors begin and end.

#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

use std::{
    env, fs,
    future::Future,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    pin::{Pin, pin},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use segvm::{Attribute, CheckpointError, Error, OpenError, Root, Saved, Session, SessionOptions};

/// Names the store to the other process, and says what it is to do.
const STORE: &str = "SEGVM_TEST_STORE";
const WHAT: &str = "SEGVM_TEST_WHAT";

fn open(store: &Path) -> Session {
    SessionOptions::new().store(store).open("image").unwrap()
}

fn count(session: &Session) -> Root<u64> {
    session.root("count").unwrap()
}

/// This test binary once more, as a process that runs [`another_process`] alone.
fn other(what: &str, store: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "another_process", "--nocapture"])
        .env(STORE, store)
        .env(WHAT, what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Run by the tests below; by itself it does nothing.
#[test]
fn another_process() {
    let (Some(store), Ok(what)) = (env::var_os(STORE), env::var(WHAT)) else {
        return;
    };
    let session = open(Path::new(&store));
    let root = count(&session);
    *root.write() += 1;
    session.checkpoint().unwrap();
    match what.as_str() {
        "exec" => {
            *root.write() += 1;
            // Takes the place of this program, session and all, and says so.
            let error = Command::new("sh").args(["-c", "echo executed; cat"]).exec();
            panic!("{error}");
        }
        "panic in an automatic checkpoint's hook" => {
            session.on_flush("bad", |_| Err::<(), _>("no"));
            session.checkpoint_every(Duration::from_millis(1)).unwrap();
            *root.write() += 1;
            // Until it was told to go: its stderr said what was waited for.
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_program_that_executes_another_lets_its_image_go_and_loses_what_was_not_saved() {
    let store = tempfile::tempdir().unwrap();
    let mut child = other("exec", store.path()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().contains("executed")),
        "it did not execute"
    );
    // The other program lives, in the process that had the lease.
    let session = open(store.path());
    assert_eq!(*count(&session).read(), 1);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_program_that_is_started_meanwhile_inherits_no_descriptor() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    *count(&session).write() = 1;
    session.checkpoint().unwrap();
    let ours = fs::read_dir("/proc/self/fd").unwrap();
    let ours: Vec<_> = ours
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .map(|to| to.to_string_lossy().into_owned())
        .filter(|to| to.contains("userfaultfd") || Path::new(to).starts_with(store.path()))
        .collect();
    assert!(ours.len() > 2, "the session has descriptors: {ours:?}");
    let list = "for fd in /proc/self/fd/*; do readlink $fd; done";
    let output = Command::new("sh").args(["-c", list]).output().unwrap();
    let theirs = String::from_utf8(output.stdout).unwrap();
    for name in ours.iter().map(String::as_str).chain(["pagemap"]) {
        assert!(!theirs.contains(name), "{name} was inherited:\n{theirs}");
    }
}

#[test]
fn a_session_that_is_dropped_joins_its_thread_saves_nothing_and_lets_its_image_go() {
    let store = tempfile::tempdir().unwrap();
    let threads = || fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    for round in 1..=20 {
        let session = open(store.path());
        let root = count(&session);
        assert_eq!(
            *root.read(),
            round - 1,
            "only what was checkpointed is there"
        );
        *root.write() = round;
        // It is under way, or about to begin: it is carried out.
        let running = session.start_checkpoint().unwrap();
        drop(session);
        assert_eq!(threads(), before, "a thread is left");
        assert!(running.is_done(), "dropped before its checkpoint had ended");
        assert!(running.wait().unwrap().changed);
        let session = open(store.path());
        *count(&session).write() = 1000;
    }
}

#[test]
fn errors_of_automatic_checkpoints_are_told_on_stderr_where_nobody_asks_for_them() {
    let store = tempfile::tempdir().unwrap();
    let mut child = other("panic in an automatic checkpoint's hook", store.path())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let told = lines
        .map(Result::unwrap)
        .find(|line| line.contains("an automatic checkpoint failed"));
    let told = told.expect("nothing was told");
    assert!(told.contains("`bad`") && told.contains("no"), "{told}");
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    child.wait().unwrap();
}

/// Lets the system refuse this process more than so much memory of its own; answers what it was before.
fn limit_data(bytes: libc::rlim_t) -> libc::rlim_t {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a place for the answer.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_DATA, &raw mut limit) };
    let before = std::mem::replace(&mut limit.rlim_cur, bytes);
    // SAFETY: `limit` is a whole limit, and only read.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) };
    assert_eq!((got, set), (0, 0));
    before
}

#[test]
fn a_heap_that_could_not_be_made_is_made_later() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let data = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    let data: u64 = data.unwrap().trim_end_matches("kB").trim().parse().unwrap();
    // Less than it has already: what lies in a reservation is not counted before it is there.
    let before = limit_data((data - 1) << 10);
    let refused = session.root::<u64>("count");
    limit_data(before);
    let error = refused.unwrap_err();
    assert!(
        matches!(error, Error::Open(OpenError::Heap { .. })),
        "{error}"
    );
    // A checkpoint in between saves a segment that has no heap yet.
    session.checkpoint().unwrap();
    *count(&session).write() = 5;
    session.suspend().unwrap();
    assert_eq!(*count(&open(store.path())).read(), 5);
}

/// The smallest executor: parks its thread until it is woken.
struct Unpark(Thread, AtomicU32);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current(), AtomicU32::new(0))));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Polls once, with a waker that nobody listens to any more.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Keeps a checkpoint from ending until it is dropped: it waits for this guard.
fn held<T>(root: &Root<u64>, work: impl FnOnce() -> T) -> T {
    let guard = root.write();
    let done = work();
    drop(guard);
    done
}

#[test]
fn a_checkpoint_is_awaited_on_any_executor_and_on_another_thread_than_it_was_polled_on() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let root = count(&session);
    *root.write() = 1;
    assert!(
        block_on(session.start_checkpoint().unwrap())
            .unwrap()
            .changed
    );

    // Polled here, where it is not done and the waker leads nowhere; awaited on another thread, which is the one that is woken.
    *root.write() = 2;
    let saved: Saved = thread::scope(|scope| {
        let waiting = held(&root, || {
            let mut checkpoint = session.start_checkpoint().unwrap();
            assert!(poll_once(Pin::new(&mut checkpoint)).is_pending());
            scope.spawn(move || block_on(checkpoint))
        });
        waiting.join().unwrap().unwrap()
    });
    assert!(saved.changed);

    // Several at once, one task: each is told of its own.
    let all = async {
        let (one, two) = (session.start_checkpoint()?, session.start_checkpoint()?);
        Ok::<_, CheckpointError>((two.await?.sequence, one.await?.sequence))
    };
    let (two, one) = block_on(all).unwrap();
    assert!(two >= one);
    drop(session);
    assert_eq!(*count(&open(store.path())).read(), 2);
}

#[test]
fn a_future_that_is_dropped_does_not_stop_its_checkpoint() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    let root = count(&session);
    *root.write() = 1;
    held(&root, || {
        let mut checkpoint = session.start_checkpoint().unwrap();
        assert!(poll_once(Pin::new(&mut checkpoint)).is_pending());
    });
    // The next one is done after it.
    let next = block_on(session.start_checkpoint().unwrap()).unwrap();
    assert!(!next.changed, "the dropped one had saved it");
    drop(session);
    assert_eq!(*count(&open(store.path())).read(), 1);
}

#[test]
fn an_error_is_awaited_like_a_result() {
    let store = tempfile::tempdir().unwrap();
    let session = open(store.path());
    *count(&session).write() = 1;
    session.on_flush("bad", |_| Err::<(), _>("no"));
    let error = block_on(session.start_checkpoint().unwrap()).unwrap_err();
    assert!(matches!(error, CheckpointError::Hook(_)), "{error}");
}

/// Nothing that a task holds over an await can keep a checkpoint out for good: guards are not `Send`, so they stay on
/// their thread (tests/ui), and a session is shared by reference or `Arc` between threads.
#[test]
fn sessions_roots_and_handles_go_between_threads() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Session>();
    shared::<Root<u64>>();
    sent::<segvm::Checkpoint>();
    let store = tempfile::tempdir().unwrap();
    let session = Arc::new(open(store.path()));
    let root = count(&session);
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (session, root) = (Arc::clone(&session), root.clone());
            thread::spawn(move || {
                for _ in 0..20 {
                    *root.write() += 1;
                    block_on(session.start_checkpoint().unwrap()).unwrap();
                }
            })
        })
        .collect();
    workers
        .into_iter()
        .for_each(|worker| worker.join().unwrap());
    let session = Arc::into_inner(session).unwrap();
    session.suspend().unwrap();
    assert_eq!(*count(&open(store.path())).read(), 80);
}

/// Maps, descriptors and threads of this process.
fn of_this_process() -> [usize; 3] {
    let files = |dir| fs::read_dir(dir).unwrap().count();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    // The allocator's own come and go, and are not named after anything of a session's.
    let ours = maps.lines().filter(|line| {
        let first = line.split('-').next().unwrap();
        let at = usize::from_str_radix(first, 16).unwrap();
        line.contains(".pack") || (16 << 40..80 << 40).contains(&at)
    });
    [
        ours.count(),
        files("/proc/self/fd"),
        files("/proc/self/task"),
    ]
}

#[test]
fn what_sessions_take_of_the_process_they_give_back() {
    let store = tempfile::tempdir().unwrap();
    let life = |n: u64| {
        let session = open(store.path());
        *count(&session).write() = n;
        let memory = session.segment("memory", 4 << 20).unwrap();
        memory.write(5000, &n.to_le_bytes()).unwrap();
        let cache = session.region("cache", 1 << 20, Attribute::Drop).unwrap();
        cache.write().unwrap().bytes_mut()[0] = 1;
        session.start_checkpoint().unwrap().wait().unwrap();
        session.branch(&format!("branch-{n}")).unwrap();
        *count(&session).write() = 0;
        session.restore("-0").unwrap();
        session.restore("no such commit").unwrap_err();
        session.branch("image").unwrap_err();
        cache.discard().unwrap();
        if n.is_multiple_of(2) {
            session.suspend().unwrap();
        }
    };
    (0..2).for_each(life);
    let before = of_this_process();
    (2..12).for_each(life);
    assert_eq!(of_this_process(), before, "[maps, descriptors, threads]");
}
