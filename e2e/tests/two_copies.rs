//! Two copies of the library in one process, as when an application and a plug-in each link their own: two handlers of faults in a
//! row, each installed once, each for the addresses of its own sessions alone.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

use std::{
    env,
    ffi::{CStr, CString, c_char, c_void},
    mem,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    ptr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use segvm::{Engine, Segment, Session, SessionOptions};
use segvm_e2e::{PAGE, PAGES, last_writer, page_of};

const CHILD: &str = "SEGVM_TWO_COPIES_CHILD";
const ENGINE: &str = "SEGVM_TWO_COPIES_ENGINE";

type Open = unsafe extern "C" fn(*const c_char, *const c_char, *const c_char) -> *mut c_void;
type Base = unsafe extern "C" fn(*const c_void) -> usize;
type Step = unsafe extern "C" fn(*const c_void, u64);
type Checkpoint = unsafe extern "C" fn(*const c_void);
type Close = unsafe extern "C" fn(*mut c_void);

/// The calls of the second copy.
#[derive(Clone, Copy)]
struct Calls {
    open: Open,
    base: Base,
    step: Step,
    checkpoint: Checkpoint,
    close: Close,
}

/// Built with the tests: `cargo build -p segvm-e2e --examples`, in the same profile.
fn library() -> PathBuf {
    let test = env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).unwrap().join("examples");
    folder.join("libsecond_copy.so")
}

impl Calls {
    fn load() -> Self {
        let path = library();
        assert!(
            path.exists(),
            "{} is missing: cargo build -p segvm-e2e --examples",
            path.display()
        );
        let name = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a library of ours, whose constructors are those of std.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null(), "{}", path.display());
        let find = |name: &CStr| {
            // SAFETY: a handle that was not closed, and a string that ends with a zero.
            let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
            assert!(!found.is_null(), "{name:?}");
            found
        };
        // SAFETY: functions of this signature: second_copy/lib.rs.
        let open = unsafe { mem::transmute::<*mut c_void, Open>(find(c"second_open")) };
        // SAFETY: as above.
        let base = unsafe { mem::transmute::<*mut c_void, Base>(find(c"second_base")) };
        // SAFETY: as above.
        let step = unsafe { mem::transmute::<*mut c_void, Step>(find(c"second_step")) };
        // SAFETY: as above.
        let checkpoint =
            unsafe { mem::transmute::<*mut c_void, Checkpoint>(find(c"second_checkpoint")) };
        // SAFETY: as above.
        let close = unsafe { mem::transmute::<*mut c_void, Close>(find(c"second_close")) };
        Self {
            open,
            base,
            step,
            checkpoint,
            close,
        }
    }

    fn open(self, store: &Path, image: &str, engine: Engine) -> Second {
        let texts = [store.to_str().unwrap(), image, engine.name()];
        let [store, image, engine] = texts.map(|text| CString::new(text).unwrap());
        // SAFETY: strings that end with a zero.
        let state = unsafe { (self.open)(store.as_ptr(), image.as_ptr(), engine.as_ptr()) };
        Second { calls: self, state }
    }
}

/// A session of the second copy.
struct Second {
    calls: Calls,
    state: *mut c_void,
}

// SAFETY: steps may be taken beside checkpoints, says second_copy/lib.rs.
unsafe impl Sync for Second {}

impl Second {
    fn base(&self) -> usize {
        // SAFETY: open.
        unsafe { (self.calls.base)(self.state) }
    }

    fn step(&self, n: u64) {
        // SAFETY: open.
        unsafe { (self.calls.step)(self.state, n) };
    }

    fn checkpoint(&self) {
        // SAFETY: open.
        unsafe { (self.calls.checkpoint)(self.state) };
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // SAFETY: open until now.
        unsafe { (self.calls.close)(self.state) };
    }
}

fn open(store: &Path, image: &str, engine: Engine) -> (Session, Segment) {
    let options = SessionOptions::new().store(store).engine(engine);
    let session = options.open(image).unwrap();
    let segment = session.segment("memory", PAGES * PAGE).unwrap();
    (session, segment)
}

fn word(base: usize, at: usize) -> &'static AtomicU64 {
    // SAFETY: committed memory of a session that outlives the use, aligned, and written by atomics only.
    unsafe { &*ptr::with_exposed_provenance::<AtomicU64>(base + at) }
}

/// Which library the handler of SIGSEGV lies in, and where.
fn handler() -> (usize, String) {
    // SAFETY: all zero is a sigaction.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: only reads; a whole sigaction to write into.
    unsafe { libc::sigaction(libc::SIGSEGV, ptr::null(), &raw mut action) };
    // SAFETY: all zero is a Dl_info.
    let mut info: libc::Dl_info = unsafe { mem::zeroed() };
    let at = ptr::with_exposed_provenance(action.sa_sigaction);
    // SAFETY: an address, and a whole Dl_info to write into.
    assert_ne!(unsafe { libc::dladdr(at, &raw mut info) }, 0);
    // SAFETY: found, so that the name is a string that ends with a zero.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    (action.sa_sigaction, name.to_string_lossy().into_owned())
}

fn holds(base: usize, image: &str) -> u64 {
    let count = word(base, 0).load(Ordering::Relaxed);
    for page in 0..PAGES {
        let expected = last_writer(page, count).unwrap_or_default();
        let found = word(base, page * PAGE + 8).load(Ordering::Relaxed);
        assert_eq!(found, expected, "{image}: page {page} after {count} steps");
    }
    count
}

/// Both write at full speed while both checkpoint: each write is let through by its own copy, and is in its own image.
fn both_by(engine: Engine) {
    let store = tempfile::tempdir().unwrap();
    let calls = Calls::load();
    let (first, memory) = open(store.path(), "first", engine);
    let (of_first, here) = handler();
    let second = calls.open(store.path(), "second", engine);
    let (of_second, there) = handler();
    if engine != Engine::WpAsync {
        // Installed by each, and not found in place of each other.
        assert!(here != there && of_first != of_second, "{here} and {there}");
        assert!(there.contains("second_copy"), "{there}");
    }
    // Further sessions install nothing: the second would otherwise come before the first, which comes before it.
    let more = (
        open(store.path(), "third", engine),
        calls.open(store.path(), "fourth", engine),
    );
    assert_eq!(handler().0, of_second);

    let (stop, steps) = (AtomicBool::new(false), AtomicU64::new(0));
    let base = memory.as_ptr() as usize;
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1.. {
                let pass = first.enter().unwrap();
                word(base, page_of(n) * PAGE + 8).store(n, Ordering::Relaxed);
                word(base, 0).store(n, Ordering::Relaxed);
                drop(pass);
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        scope.spawn(|| {
            for n in 1.. {
                second.step(n);
                steps.store(n, Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..8 {
            first.checkpoint().unwrap();
            second.checkpoint();
        }
        while word(base, 0)
            .load(Ordering::Relaxed)
            .min(steps.load(Ordering::Relaxed))
            < 3000
        {
            thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let counts = [holds(base, "first"), holds(second.base(), "second")];
    first.checkpoint().unwrap();
    second.checkpoint();
    drop((more, second, first, memory));
    // What each saved. The other one could not open it here: the addresses stay reserved by whoever had them.
    let (_first, memory) = open(store.path(), "first", engine);
    assert_eq!(holds(memory.as_ptr() as usize, "first"), counts[0]);
    let second = calls.open(store.path(), "second", engine);
    assert_eq!(holds(second.base(), "second"), counts[1]);
}

#[test]
fn both_track_what_is_theirs_by_signals() {
    both_by(Engine::Mprotect);
}

#[test]
fn both_track_what_is_theirs_by_threads() {
    both_by(Engine::WpSync);
}

/// What is a fault of one copy's is named by it alone, and then the process dies of it once; what is nobody's is not commented.
#[test]
fn a_fault_is_named_by_whose_it_is() {
    const NAME: &str = "a_fault_is_named_by_whose_it_is";
    if let Ok(whose) = env::var(CHILD) {
        let store = tempfile::tempdir().unwrap();
        let engine = env::var(ENGINE).unwrap().parse().unwrap();
        let calls = Calls::load();
        let (first, memory) = open(store.path(), "first", engine);
        let second = calls.open(store.path(), "second", engine);
        let at = match &*whose {
            "first" => memory.as_ptr() as usize,
            "second" => second.base(),
            _ => 64,
        };
        drop((first, memory, second, store));
        eprintln!("still here");
        // SAFETY: it is not; the child dies of it, which is what is tested.
        unsafe { ptr::with_exposed_provenance::<u8>(at).read_volatile() };
        return;
    }
    for engine in Engine::ALL {
        for whose in ["first", "second", "nobody"] {
            let output: Output = Command::new(env::current_exe().unwrap())
                .args(["--exact", NAME, "--nocapture"])
                .env(CHILD, whose)
                .env(ENGINE, engine.name())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("still here\n"), "{engine}, {whose}: {said}");
            let named = said.lines().filter(|line| line.contains("(at 0x")).count();
            assert_eq!(
                named,
                usize::from(whose != "nobody"),
                "{engine}, {whose}: {said}"
            );
            assert!(
                whose == "nobody" || said.contains(whose),
                "{engine}, {whose}: {said}"
            );
            assert_eq!(
                output.status.signal(),
                Some(libc::SIGSEGV),
                "{engine}, {whose}"
            );
        }
    }
}
