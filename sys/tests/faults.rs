//! Faults on watched ranges, in child processes that die of them.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]
use std::{
    env,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{fs::FileExt, process::ExitStatusExt},
    },
    process::{Command, Output},
};

use segvm_os::{FaultKind, Kernel, Mappable, PageRange, RealKernel, watch_faults};

#[derive(Debug)]
struct Short(File);

impl Mappable for Short {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

const CHILD: &str = "SEGVM_OS_FAULTS_CHILD";
/// The file to map: the parent's, since a child that is killed removes none.
const FILE: &str = "SEGVM_OS_FAULTS_FILE";

/// The test `name` of this binary once more, where it takes the child's part.
fn command(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "yes");
    command
}

fn child_of(name: &str) -> Output {
    command(name).output().unwrap()
}

fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

fn touch(at: usize) {
    let from = std::ptr::with_exposed_provenance::<u8>(at);
    // SAFETY: it is not; the child dies of it, which is what is tested.
    unsafe { from.read_volatile() };
}

fn two_pages(kernel: &RealKernel) -> PageRange {
    let page = kernel.page_size();
    let range = PageRange::new(page, 0x5a00_0000_0000, 2 * page.bytes()).unwrap();
    kernel.reserve(range).unwrap();
    range
}

/// Maps a file that ends before the second page.
fn map_short(kernel: &RealKernel, range: PageRange) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(10).unwrap();
    // SAFETY: the range was reserved; nobody changes the file.
    unsafe { kernel.map_file(range, &Short(file), 0) }.unwrap();
}

/// Maps a file from its second page on, which is its last.
fn map_named(kernel: &RealKernel, range: PageRange) {
    let file = File::open(env::var_os(FILE).unwrap()).unwrap();
    // SAFETY: the range was reserved; nobody changes the file.
    unsafe { kernel.map_file(range, &Short(file), range.len() as u64 / 2) }.unwrap();
}

#[test]
fn an_unreadable_page_is_named_and_then_kills() {
    let page = rustix::param::page_size();
    if is_child() {
        let kernel = RealKernel::new().unwrap();
        let range = two_pages(&kernel);
        map_named(&kernel, range);
        let _watch = watch_faults(range, FaultKind::Unreadable, "image notes: disk error").unwrap();
        touch(range.end() - 1);
        return;
    }
    let file = tempfile::Builder::new().suffix(".pack").tempfile().unwrap();
    file.as_file().set_len(page as u64 + 10).unwrap();
    let output = command("an_unreadable_page_is_named_and_then_kills")
        .env(FILE, file.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let offset = 2 * page - 1;
    let at = 0x5a00_0000_0000_usize + offset;
    let line = format!(
        "image notes: disk error (at {at:#x}, offset {offset:#x}; file {}, offset {:#x})\n",
        file.path().file_name().unwrap().display(),
        page + offset
    );
    assert!(said.contains(&line), "{said}");
    assert_eq!(said.matches("image notes").count(), 1, "{said}");
    assert_eq!(output.status.signal(), Some(libc::SIGBUS));
}

#[test]
fn a_stale_pointer_is_named_and_then_kills() {
    if is_child() {
        let kernel = RealKernel::new().unwrap();
        let range = two_pages(&kernel);
        let watch = watch_faults(range, FaultKind::Forbidden, "session notes is closed").unwrap();
        std::mem::forget(watch);
        std::thread::spawn(move || touch(range.start()))
            .join()
            .unwrap();
        return;
    }
    let output = child_of("a_stale_pointer_is_named_and_then_kills");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("session notes is closed (at 0x5a0000000000, offset 0x0)\n"),
        "{said}"
    );
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
}

#[test]
fn faults_elsewhere_and_sent_signals_are_not_commented() {
    if is_child() {
        let kernel = RealKernel::new().unwrap();
        let range = two_pages(&kernel);
        let _one = watch_faults(range, FaultKind::Unreadable, "WRONG").unwrap();
        let elsewhere = PageRange::new(kernel.page_size(), 0, range.len()).unwrap();
        let _two = watch_faults(elsewhere, FaultKind::Forbidden, "WRONG").unwrap();
        // Twice: the handler that std installs takes a signal that was sent for a reason to restore the default.
        for _ in 0..2 {
            // SAFETY: sends a signal to this very thread.
            unsafe { libc::raise(libc::SIGSEGV) };
        }
        return;
    }
    let output = child_of("faults_elsewhere_and_sent_signals_are_not_commented");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("WRONG"));
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
}

extern "C" fn earlier(_: libc::c_int) {
    // SAFETY: async-signal-safe; ends the child.
    unsafe { libc::_exit(42) };
}

#[test]
fn an_earlier_handler_has_the_last_word() {
    if is_child() {
        // SAFETY: all zero is a sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(libc::c_int) = earlier;
        action.sa_sigaction = handler as libc::sighandler_t;
        // SAFETY: a whole sigaction with a handler that is async-signal-safe.
        unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) };
        let kernel = RealKernel::new().unwrap();
        let range = two_pages(&kernel);
        map_short(&kernel, range);
        let _watch = watch_faults(range, FaultKind::Unreadable, "image notes: disk error").unwrap();
        touch(range.end() - 1);
        return;
    }
    let output = child_of("an_earlier_handler_has_the_last_word");
    assert!(String::from_utf8_lossy(&output.stderr).contains("image notes: disk error"));
    assert_eq!(output.status.code(), Some(42));
}

/// The name of the file is help, not the point: without it the rest is still said.
#[test]
fn a_process_that_may_open_no_more_files_hears_the_rest() {
    if is_child() {
        let kernel = RealKernel::new().unwrap();
        let range = two_pages(&kernel);
        map_short(&kernel, range);
        let _watch = watch_faults(range, FaultKind::Unreadable, "image notes: disk error").unwrap();
        let none = rustix::process::Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, none).unwrap();
        touch(range.end() - 1);
        return;
    }
    let output = child_of("a_process_that_may_open_no_more_files_hears_the_rest");
    let said = String::from_utf8_lossy(&output.stderr);
    let offset = 2 * rustix::param::page_size() - 1;
    assert!(
        said.contains("image notes: disk error (at ")
            && said.contains(&format!("offset {offset:#x})\n")),
        "{said}"
    );
    assert_eq!(output.status.signal(), Some(libc::SIGBUS));
}

/// Where there is no userfaultfd to be had, the next best engine is found by trying, and the better ones say what they lack.
#[test]
fn a_process_that_may_open_no_more_files_gets_the_engine_that_needs_none() {
    use segvm_os::{Engine, best_engine, open_engine};
    if is_child() {
        let none = rustix::process::Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, none).unwrap();
        for better in [Engine::WpAsync, Engine::WpSync] {
            let refused = open_engine(better).unwrap_err().to_string();
            assert!(refused.contains("userfaultfd"), "{better}: {refused}");
        }
        let (engine, kernel) = best_engine().unwrap();
        assert_eq!(engine, Engine::Mprotect);
        kernel.watch().map(drop).unwrap();
        eprintln!("still here");
        return;
    }
    let output = child_of("a_process_that_may_open_no_more_files_gets_the_engine_that_needs_none");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("still here\n"),
        "{said}"
    );
}

/// An armed page by the engine whose handler lets writes through, and the page after it.
fn armed() -> (std::sync::Arc<dyn Kernel>, PageRange) {
    let kernel = segvm_os::open_engine(segvm_os::Engine::Mprotect).unwrap();
    let page = kernel.page_size();
    let range = PageRange::new(page, 0x5a00_0000_0000, 2 * page.bytes()).unwrap();
    kernel.reserve(range).unwrap();
    // SAFETY: reserved just now.
    unsafe { kernel.commit(range) }.unwrap();
    let watch = kernel.watch().unwrap();
    // SAFETY: as above.
    unsafe { watch.register(range) }.unwrap();
    // SAFETY: as above.
    unsafe { watch.arm(range) }.unwrap();
    std::mem::forget(watch);
    (kernel, range)
}

fn put(at: usize) {
    let to = std::ptr::with_exposed_provenance_mut::<u8>(at);
    // SAFETY: it is not where the child is to die of it; elsewhere it is committed memory.
    unsafe { to.write_volatile(1) };
}

#[test]
fn writes_are_let_through_and_stale_ones_still_kill() {
    if is_child() {
        let (kernel, range) = armed();
        put(range.start());
        // SAFETY: nobody needs it any more, says the test.
        unsafe { kernel.fence(range) }.unwrap();
        let watch = watch_faults(range, FaultKind::Forbidden, "session notes is closed").unwrap();
        std::mem::forget(watch);
        eprintln!("still here");
        put(range.start());
        return;
    }
    let output = child_of("writes_are_let_through_and_stale_ones_still_kill");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("still here\n"), "{said}");
    assert!(
        said.contains("session notes is closed (at 0x5a0000000000"),
        "{said}"
    );
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
}

#[test]
fn a_page_that_was_made_read_only_is_not_written_to() {
    if is_child() {
        let (kernel, range) = armed();
        // SAFETY: the write below is what is tested.
        unsafe { kernel.set_writable(range, false) }.unwrap();
        put(range.start());
        return;
    }
    let output = child_of("a_page_that_was_made_read_only_is_not_written_to");
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
}

/// Lifting the write protection does not help it: it would be tried again for ever.
#[test]
fn running_code_in_an_armed_page_kills() {
    if is_child() {
        let (_kernel, range) = armed();
        // SAFETY: it is none; the child dies of it, which is what is tested.
        let code = unsafe { std::mem::transmute::<usize, extern "C" fn()>(range.start()) };
        code();
        return;
    }
    let output = child_of("running_code_in_an_armed_page_kills");
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
}

/// Who handled faults before us hears of all but ours, with the signals blocked that it asked for.
#[test]
fn an_earlier_handler_hears_of_foreign_faults_alone() {
    extern "C" fn earlier(_: libc::c_int) {
        // SAFETY: all zero is a set.
        let mut mask: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: only reads; a whole set to write into.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut mask) };
        // SAFETY: a whole set to look into.
        let blocked = |signal| unsafe { libc::sigismember(&raw const mask, signal) } == 1;
        let as_asked = blocked(libc::SIGSEGV) && blocked(libc::SIGUSR1) && !blocked(libc::SIGUSR2);
        // SAFETY: async-signal-safe; ends the child.
        unsafe { libc::_exit(if as_asked { 42 } else { 43 }) };
    }
    if is_child() {
        // SAFETY: all zero is a sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(libc::c_int) = earlier;
        action.sa_sigaction = handler as libc::sighandler_t;
        // SAFETY: a whole set to write into.
        unsafe { libc::sigaddset(&raw mut action.sa_mask, libc::SIGUSR1) };
        // SAFETY: a whole sigaction with a handler that is async-signal-safe.
        unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut()) };
        let (_kernel, range) = armed();
        put(range.start());
        eprintln!("still here");
        put(0x5a10_0000_0000);
        return;
    }
    let output = child_of("an_earlier_handler_hears_of_foreign_faults_alone");
    assert!(String::from_utf8_lossy(&output.stderr).contains("still here\n"));
    assert_eq!(output.status.code(), Some(42));
}

/// A second copy of this library has a handler of its own, which passes on what is not its: that is what one that was
/// installed after ours and passes everything on looks like to ours.
#[test]
fn a_later_handler_that_passes_on_does_not_stop_ours() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static BEFORE: AtomicUsize = AtomicUsize::new(0);
    static PASSED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn later(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        type Full = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);
        PASSED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: what the kernel said the handler was, with the signature that its flags said.
        let next = unsafe { std::mem::transmute::<usize, Full>(BEFORE.load(Ordering::Relaxed)) };
        next(signal, info, context);
    }
    if is_child() {
        let (_kernel, range) = armed();
        // SAFETY: all zero is a sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: all zero is a sigaction.
        let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = later;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: whole sigactions, one to read and one to write into.
        unsafe { libc::sigaction(libc::SIGSEGV, std::ptr::null(), &raw mut before) };
        assert!(before.sa_flags & libc::SA_SIGINFO != 0);
        BEFORE.store(before.sa_sigaction, Ordering::Relaxed);
        // SAFETY: a whole sigaction with a handler that is async-signal-safe.
        unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut()) };
        put(range.start());
        put(range.end() - 1);
        assert_eq!(PASSED.load(Ordering::Relaxed), 2);
        eprintln!("still here");
        return;
    }
    let output = child_of("a_later_handler_that_passes_on_does_not_stop_ours");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("still here\n") && output.status.success(),
        "{said}"
    );
}
