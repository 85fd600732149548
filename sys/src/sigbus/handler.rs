//! What runs in the signal.
//!
//! It may call: loads from the static table, arithmetic on its stack, `write(2)` as a raw system call (errno stays
//! as it was), what `maps` and `engine::fault` list, `sigaction`, `pthread_sigmask`, functions on signal sets and `raise`. No allocation, lock, panic or log. It ends by chaining.

use std::{io, mem, os::fd::BorrowedFd, ptr, sync::OnceLock};

use libc::{c_int, c_void, siginfo_t};

use super::{
    maps::{self, NAME_LEN},
    table::{FaultKind, TEXT_LEN, find},
};
use crate::engine::let_through;

/// What handled the two signals before: set before the handler is installed.
static BEFORE: OnceLock<Result<[libc::sigaction; 2], c_int>> = OnceLock::new();

const SIGNALS: [c_int; 2] = [libc::SIGBUS, libc::SIGSEGV];

/// Installs the handler, if no call did so before; when this returns it is there.
pub(crate) fn install() -> io::Result<()> {
    static DONE: OnceLock<Result<(), c_int>> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        let before = BEFORE.get_or_init(|| Ok([current(libc::SIGBUS)?, current(libc::SIGSEGV)?]));
        before.as_ref().map_err(|errno| *errno)?;
        put_in_place()
    });
    done.map_err(io::Error::from_raw_os_error)
}

fn put_in_place() -> Result<(), c_int> {
    // SAFETY: all zero is a sigaction: the default action, no flags, an empty mask.
    let mut ours: libc::sigaction = unsafe { mem::zeroed() };
    let entry: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_fault;
    ours.sa_sigaction = entry as libc::sighandler_t;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // Everything is blocked while it runs: another signal's handler that writes to a protected page would be a fault within
    // a fault, which kills; and one that jumped out of here would leave whoever arms pages waiting for ever.
    // SAFETY: a whole set to write into.
    unsafe { libc::sigfillset(&raw mut ours.sa_mask) };
    for signal in SIGNALS {
        // SAFETY: `ours` is a whole sigaction; `on_fault` has the signature that SA_SIGINFO asks for, is
        // async-signal-safe, and chains.
        if unsafe { libc::sigaction(signal, &raw const ours, ptr::null_mut()) } != 0 {
            return Err(last_errno());
        }
    }
    Ok(())
}

fn last_errno() -> c_int {
    let error = io::Error::last_os_error();
    error.raw_os_error().unwrap_or(libc::EINVAL)
}

fn current(signal: c_int) -> Result<libc::sigaction, c_int> {
    // SAFETY: all zero is a sigaction.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: without a new action this only reads; `action` is a whole sigaction to write into.
    match unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) } {
        0 => Ok(action),
        _ => Err(last_errno()),
    }
}

extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a siginfo_t that lives, unchanged, as long as the handler runs.
    let what = unsafe { &*info };
    let code = what.si_code;
    // Above zero: the kernel says so because of an access; otherwise somebody sent the signal, and no address is in it.
    if code > 0 {
        // SAFETY: for a SIGBUS or SIGSEGV that an access caused, the address is there.
        let at = unsafe { what.si_addr() }.addr();
        // SAFETY: the context is the one of this signal.
        if signal == libc::SIGSEGV && unsafe { let_through(at, code, context) } {
            return;
        }
        explain(signal, at);
    }
    chain(signal, code, info, context);
}

/// Says what the fault is about, if that is known. Apart, so that a write that is let through needs little stack.
#[inline(never)]
fn explain(signal: c_int, at: usize) {
    let kind = match signal {
        libc::SIGBUS => FaultKind::Unreadable,
        _ => FaultKind::Forbidden,
    };
    if let Some(text) = find(kind, at) {
        let mut line = Line::new();
        line.push(text.bytes.get(..text.len).unwrap_or_default());
        line.push(b" (at ");
        line.push_hex(at as u64);
        line.push(b", offset ");
        line.push_hex(text.offset as u64);
        // A range that forbids every access shows no file.
        if kind == FaultKind::Unreadable
            && let Some(place) = maps::file_at(at)
        {
            line.push(b"; file ");
            line.push(place.name());
            line.push(b", offset ");
            line.push_hex(place.offset);
        }
        line.push(b")\n");
        line.print();
    }
}

fn chain(signal: c_int, code: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let before = match BEFORE.get() {
        Some(Ok([bus, _])) if signal == libc::SIGBUS => Some(bus),
        Some(Ok([_, segv])) => Some(segv),
        _ => None,
    };
    let handler = before.map_or(libc::SIG_DFL, |action| action.sa_sigaction);
    match before {
        Some(_) if handler == libc::SIG_IGN && code <= 0 => {}
        // The default. An ignored fault as well: the instruction would only fault again, for ever.
        None => die(signal, code),
        Some(_) if handler == libc::SIG_DFL || handler == libc::SIG_IGN => die(signal, code),
        Some(action) if action.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the context is the one of this signal.
            unsafe { unblock(signal, action, context) };
            type Full = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
            // SAFETY: neither default nor ignore, so it is the address of a handler, and its flag says this signature.
            let call = unsafe { mem::transmute::<libc::sighandler_t, Full>(handler) };
            call(signal, info, context);
        }
        Some(action) => {
            // SAFETY: the context is the one of this signal.
            unsafe { unblock(signal, action, context) };
            type Short = extern "C" fn(c_int);
            // SAFETY: neither default nor ignore, so it is the address of a handler, and without SA_SIGINFO it takes
            // the number alone.
            let call = unsafe { mem::transmute::<libc::sighandler_t, Short>(handler) };
            call(signal);
        }
    }
}

/// Blocks what would be blocked if the handler before us had been called by the kernel. Our return undoes it, as that of any
/// handler does.
///
/// # Safety
/// `context` is what the kernel passed to the handler of this signal.
unsafe fn unblock(signal: c_int, action: &libc::sigaction, context: *mut c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel passes a ucontext_t that lives as long as the handler runs.
    let mut mask = unsafe { (*context).uc_sigmask };
    for other in 1..=64 {
        // SAFETY: a whole set to look into; numbers that are no signals are an answer below zero.
        let blocked = unsafe { libc::sigismember(&raw const action.sa_mask, other) } == 1;
        if blocked || (other == signal && action.sa_flags & libc::SA_NODEFER == 0) {
            // SAFETY: a whole set to write into.
            unsafe { libc::sigaddset(&raw mut mask, other) };
        }
    }
    // SAFETY: async-signal-safe; a whole set to read.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, ptr::null_mut()) };
}

/// Restores the default action and lets it happen: on return the same instruction faults again, and a signal that was
/// sent is sent again. So the core dump shows the place of the fault, not this handler.
fn die(signal: c_int, code: c_int) {
    // SAFETY: all zero is a sigaction: the default action.
    let default: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: `default` is a whole sigaction; sigaction is async-signal-safe. Nothing could be done if it failed.
    unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
    if code <= 0 {
        // SAFETY: raise is async-signal-safe; the signal is blocked until this handler returns.
        unsafe { libc::raise(signal) };
    }
}

/// Room for the text, the file's name, and the numbers and words between them.
const LINE_LEN: usize = TEXT_LEN + NAME_LEN + 112;

/// A line that is put together on the stack; what does not fit is left out.
struct Line {
    bytes: [u8; LINE_LEN],
    len: usize,
}

impl Line {
    fn new() -> Self {
        Self {
            bytes: [0; LINE_LEN],
            len: 0,
        }
    }

    fn push(&mut self, more: &[u8]) {
        for byte in more {
            if let Some(slot) = self.bytes.get_mut(self.len) {
                *slot = *byte;
                self.len += 1;
            }
        }
    }

    fn push_hex(&mut self, number: u64) {
        self.push(b"0x");
        let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
        for place in (0..digits).rev() {
            let [.., digit] = ((number >> (4 * place)) & 0xf).to_be_bytes();
            let digit = usize::from(digit);
            self.push(b"0123456789abcdef".get(digit..=digit).unwrap_or_default());
        }
    }

    fn print(&self) {
        // SAFETY: whether descriptor 2 is open does not matter: writing to a closed one is an error.
        let stderr = unsafe { BorrowedFd::borrow_raw(2) };
        let line = self.bytes.get(..self.len).unwrap_or_default();
        // One write, so that lines of several threads do not mix. There is nobody to tell of an error.
        let _lost = rustix::io::write(stderr, line);
    }
}
