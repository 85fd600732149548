//! The thread that lets writes through to pages that a userfaultfd protects: notes each, lifts the protection, wakes the writer.
//!
//! Every writer that meets a protected page waits for this thread, so it may wait for nobody who could be one of them: it takes
//! no lock, allocates nothing once it runs, touches no memory but its stack and the ledger, and has all signals blocked, since a
//! handler that wrote to a protected page would wait for itself.
//!
//! While anything is registered the thread lives. It ends when its descriptor is gone, which ends all protection (the kernel
//! does that), or with the [`Attendant`], which those who register hold.

use std::{
    io,
    mem::ManuallyDrop,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use linux_raw_sys::general::{
    UFFD_EVENT_PAGEFAULT, UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_FEATURE_WP_UNPOPULATED,
};
use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
};

use super::{Without, ledger};
use crate::{
    kernel::KernelError,
    page::{PageRange, PageSize},
    real::{Faults, Owner, Userfaultfd, failed, open_userfaultfd},
};

/// Length of one message of the kernel's (`struct uffd_msg`), and of as many as are read at a time.
const MESSAGE: usize = 32;
const MESSAGES: usize = 32;

/// A userfaultfd without `WP_ASYNC`, and the thread that attends to it.
#[derive(Debug)]
pub(super) struct Attendant {
    shared: Arc<Shared>,
    owner: Owner,
    /// Whether the kernel may forget protection when it splits a huge page of zeros.
    mistrusts_huge_zeros: bool,
    /// Readable when the thread is to end.
    end: Arc<OwnedFd>,
    /// Joined in the process that made it, by `drop`.
    thread: ManuallyDrop<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    uffd: Userfaultfd,
    /// False when the thread has ended because the descriptor is gone.
    attends: AtomicBool,
}

impl Attendant {
    /// Hears of system calls' faults too, where that is allowed.
    pub(super) fn start(page: PageSize, without: Without) -> Result<Self, KernelError> {
        let owner = Owner::this_process();
        let whose = if without.kernel_faults {
            Faults::OfPrograms
        } else {
            Faults::OfSystemCallsToo
        };
        let opened =
            open_userfaultfd(whose).or_else(|_privilege| open_userfaultfd(Faults::OfPrograms))?;
        let features = u64::from(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
        let uffd = Userfaultfd::settle(opened, owner, features).map_err(|errno| {
            KernelError::Unavailable {
                feature: "userfaultfd with write-protection",
                remedy: "Linux 5.7 or newer, on a machine that has CONFIG_HAVE_ARCH_USERFAULTFD_WP",
                source: errno.into(),
            }
        })?;
        // Kernels since 6.4 have it, and those that forgot were mended before.
        let mended = uffd.offers(UFFD_FEATURE_WP_UNPOPULATED) && !without.wp_unpopulated;
        let end = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let end = end.map_err(|errno| no_thread(errno.into()))?;
        let shared = Arc::new(Shared {
            uffd,
            attends: AtomicBool::new(true),
        });
        let end = Arc::new(end);
        let thread = {
            let (shared, end) = (Arc::clone(&shared), Arc::clone(&end));
            with_signals_blocked(|| {
                thread::Builder::new()
                    .name("segvm-faults".to_owned())
                    .spawn(move || attend(&shared, &end, page))
            })
        };
        Ok(Self {
            shared,
            owner,
            mistrusts_huge_zeros: !mended,
            end,
            thread: ManuallyDrop::new(thread.map_err(no_thread)?),
        })
    }

    /// Tells whether huge pages of zeros are better avoided.
    pub(super) fn mistrusts_huge_zeros(&self) -> bool {
        self.mistrusts_huge_zeros
    }

    /// The descriptor, if somebody attends to it.
    pub(super) fn uffd(&self, range: PageRange) -> Result<&Userfaultfd, KernelError> {
        if self.shared.attends.load(Ordering::Relaxed) {
            return Ok(&self.shared.uffd);
        }
        Err(failed("userfaultfd", range, Errno::BADF))
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        if self.owner.check().is_err() {
            // A forked child: the thread is the parent's, and so is what a word to it would end.
            return;
        }
        // SAFETY: taken once, here.
        let thread = unsafe { ManuallyDrop::take(&mut self.thread) };
        if rustix::io::write(&*self.end, &[1; 8]).is_ok() {
            let _it_does_not_panic = thread.join();
        }
    }
}

fn no_thread(source: io::Error) -> KernelError {
    KernelError::Unavailable {
        feature: "a thread that attends to faults",
        remedy: "raise the limits on processes and open files",
        source,
    }
}

/// What is spawned in here has all signals blocked.
fn with_signals_blocked<T>(spawn: impl FnOnce() -> T) -> T {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let spawned = spawn();
    if let Ok(before) = before {
        // It was the mask of this thread just now.
        let _as_before = before.thread_set_mask();
    }
    spawned
}

fn attend(shared: &Shared, end: &OwnedFd, page: PageSize) {
    let mut messages = [0; MESSAGES * MESSAGE];
    let (uffd, end) = (shared.uffd.fd(), end.as_fd());
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(uffd, PollFlags::IN),
            PollFd::from_borrowed_fd(end, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(Errno::INTR | Errno::AGAIN | Errno::NOMEM) => continue,
            Err(_) => break,
            Ok(_) => {}
        }
        let [faults, end] = fds.map(|fd| fd.revents());
        if !end.is_empty() {
            return;
        }
        if faults.intersects(PollFlags::ERR | PollFlags::NVAL | PollFlags::HUP) {
            break;
        }
        let len = match rustix::io::read(uffd, &mut messages) {
            Ok(len) => len,
            // A writer that waited and was woken, by a signal for example.
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(_) => break,
        };
        let (whole, _part) = messages.as_chunks::<MESSAGE>();
        for message in whole.iter().take(len / MESSAGE) {
            if let Some(here) = fault_of(message).and_then(|at| PageRange::covering(page, at, 1)) {
                ledger::note(page, here, |here| let_through(&shared.uffd, here));
            }
        }
    }
    // Somebody closed what is not theirs. Nothing is protected any more; every arming is an error from now on, and an error
    // means that all is dirty.
    shared.attends.store(false, Ordering::Relaxed);
}

/// The address of the fault that a message is about.
fn fault_of(message: &[u8; MESSAGE]) -> Option<usize> {
    let [event, ..] = message;
    let (words, _none) = message.as_chunks::<8>();
    let [_event, _flags, address, ..] = words else {
        return None;
    };
    #[expect(clippy::host_endian_bytes, reason = "numbers of this machine's kernel")]
    let address = usize::from_ne_bytes(*address);
    (u32::from(*event) == UFFD_EVENT_PAGEFAULT).then_some(address)
}

/// Lifts the protection of one page and wakes whoever waits for it, whatever the page has become meanwhile.
fn let_through(uffd: &Userfaultfd, here: PageRange) {
    // SAFETY: the kernel says that this page is registered with the descriptor; what is registered is an engine's to protect
    // and to lift.
    if unsafe { uffd.lift(here) }.is_err() {
        // Not registered any more, as a rule, which wakes nobody by itself. Woken, its writer finds out what is there now; were it protected still, it would be
        // here again. Without a descriptor nobody waits.
        let _gone = uffd.wake(here);
    }
}
