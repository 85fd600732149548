//! A userfaultfd and the calls on it that engines need, each decoded once.
//!
//! What a write to a protected page does is for the features to say that were settled when it was opened: with `WP_ASYNC` the
//! kernel lifts the protection by itself; without, the writer waits until somebody does.

use std::{
    fs::OpenOptions,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr, thread,
};

use linux_raw_sys::general::{
    UFFD_API, UFFD_USER_MODE_ONLY, UFFDIO_REGISTER_MODE_WP, uffdio_api, uffdio_range,
    uffdio_register, uffdio_writeprotect,
};
use rustix::{
    io::Errno,
    ioctl::{Ioctl, IoctlOutput, Opcode, Setter, Updater, ioctl, opcode},
    mm::{UserfaultfdFlags, userfaultfd},
};

use super::{failed, owner::Owner};
use crate::{kernel::KernelError, page::PageRange};

pub(super) const TYPE: u8 = 0xAA;
const API: Opcode = opcode::read_write::<uffdio_api>(TYPE, 0x3F);
const REGISTER: Opcode = opcode::read_write::<uffdio_register>(TYPE, 0x00);
const UNREGISTER: Opcode = opcode::read::<uffdio_range>(TYPE, 0x01);
const WAKE: Opcode = opcode::read::<uffdio_range>(TYPE, 0x02);
const WRITEPROTECT: Opcode = opcode::read_write::<uffdio_writeprotect>(TYPE, 0x06);
/// `USERFAULTFD_IOC_NEW`, on `/dev/userfaultfd`.
const NEW: Opcode = opcode::none(TYPE, 0x00);
/// `UFFDIO_WRITEPROTECT_MODE_WP`.
const MODE_WP: u64 = 1;

/// How often a call is tried again while the kernel says that the memory map is changing.
const TRIES: usize = 10_000;

/// Whose faults a userfaultfd hears of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Faults {
    /// The program's own. Needs no privilege; a system call that meets a page which would have to wait answers `EFAULT`.
    OfPrograms,
    /// Those of system calls too: a privilege since Linux 5.11.
    OfSystemCallsToo,
}

/// A descriptor that has settled what it speaks.
#[derive(Debug)]
pub(crate) struct Userfaultfd {
    /// Closing it ends all protection; in a forked child it closes a copy only.
    fd: OwnedFd,
    owner: Owner,
    /// All features that this kernel has.
    offered: u64,
}

impl Userfaultfd {
    /// Settles with the kernel that `fd` speaks the API with these features.
    pub(crate) fn settle(fd: OwnedFd, owner: Owner, features: u64) -> Result<Self, Errno> {
        let mut api = uffdio_api {
            api: u64::from(UFFD_API),
            features,
            ioctls: 0,
        };
        // SAFETY: API reads and writes a uffdio_api.
        let call = unsafe { Updater::<API, _>::new(&mut api) };
        // SAFETY: on a descriptor without registrations this only settles what it will speak.
        unsafe { ioctl(&fd, call) }?;
        // What comes back are all features the kernel has. It must not be used for another handshake: that would switch
        // on every event, and the next munmap would wait for a reader.
        let offered = api.features;
        if offered & features != features {
            return Err(Errno::NOTSUP);
        }
        Ok(Self { fd, owner, offered })
    }

    /// Tells whether this kernel has a feature, settled or not.
    pub(crate) fn offers(&self, feature: u32) -> bool {
        self.offered & u64::from(feature) != 0
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Runs `call` until it does something other than ask for patience.
    pub(super) fn persist(
        &self,
        name: &'static str,
        range: PageRange,
        mut call: impl FnMut(&OwnedFd) -> Result<(), Errno>,
    ) -> Result<(), KernelError> {
        self.owner.check()?;
        if range.is_empty() {
            return Ok(());
        }
        for _ in 0..TRIES {
            match call(&self.fd) {
                Err(Errno::AGAIN | Errno::INTR) => thread::yield_now(),
                done => return done.map_err(|errno| failed(name, range, errno)),
            }
        }
        Err(failed(name, range, Errno::AGAIN))
    }

    /// Makes pages such that they can be protected.
    ///
    /// # Safety
    /// The range is memory of the caller's; and where writers wait, somebody attends to the descriptor.
    pub(crate) unsafe fn register(&self, range: PageRange) -> Result<(), KernelError> {
        self.persist("ioctl(UFFDIO_REGISTER)", range, |uffd| {
            let mut arg = uffdio_register {
                range: uffdio(range),
                mode: u64::from(UFFDIO_REGISTER_MODE_WP),
                ioctls: 0,
            };
            // SAFETY: REGISTER reads and writes a uffdio_register.
            let call = unsafe { Updater::<REGISTER, _>::new(&mut arg) };
            // SAFETY: the caller owns the range; registering for write-protection changes no byte and protects nothing yet.
            unsafe { ioctl(uffd, call) }
        })
    }

    /// Ends that, and all protection there. Whoever waits for a page of it waits on: [`wake`](Self::wake).
    ///
    /// # Safety
    /// The range is memory of the caller's.
    pub(crate) unsafe fn unregister(&self, range: PageRange) -> Result<(), KernelError> {
        self.persist("ioctl(UFFDIO_UNREGISTER)", range, |uffd| {
            // SAFETY: UNREGISTER reads a uffdio_range.
            let call = unsafe { Setter::<UNREGISTER, _>::new(uffdio(range)) };
            // SAFETY: the caller owns the range; its bytes stay as they are.
            unsafe { ioctl(uffd, call) }
        })
    }

    /// Has whoever waits for a page of the range try again.
    pub(crate) fn wake(&self, range: PageRange) -> Result<(), KernelError> {
        self.persist("ioctl(UFFDIO_WAKE)", range, |uffd| {
            // SAFETY: WAKE reads a uffdio_range.
            let call = unsafe { Setter::<WAKE, _>::new(uffdio(range)) };
            // SAFETY: a thread that is woken without need faults again; no memory changes.
            unsafe { ioctl(uffd, call) }
        })
    }

    /// Protects registered pages that are there from writing.
    ///
    /// # Safety
    /// The range is memory of the caller's.
    pub(crate) unsafe fn protect(&self, range: PageRange) -> Result<(), KernelError> {
        // SAFETY: the caller's promise.
        unsafe { self.write_protect(range, MODE_WP) }
    }

    /// Lifts the protection, and has who waits for it try again.
    ///
    /// # Safety
    /// The range is memory of the caller's.
    pub(crate) unsafe fn lift(&self, range: PageRange) -> Result<(), KernelError> {
        // SAFETY: the caller's promise.
        unsafe { self.write_protect(range, 0) }
    }

    /// # Safety
    /// As its callers say.
    unsafe fn write_protect(&self, range: PageRange, mode: u64) -> Result<(), KernelError> {
        self.persist("ioctl(UFFDIO_WRITEPROTECT)", range, |uffd| {
            let mut arg = uffdio_writeprotect {
                range: uffdio(range),
                mode,
            };
            // SAFETY: WRITEPROTECT reads (and is declared to write) a uffdio_writeprotect.
            let call = unsafe { Updater::<WRITEPROTECT, _>::new(&mut arg) };
            // SAFETY: the caller owns the range; no byte of it changes, and whoever writes to a protected page is let through.
            unsafe { ioctl(uffd, call) }
        })
    }
}

fn uffdio(range: PageRange) -> uffdio_range {
    uffdio_range {
        start: range.start() as u64,
        len: range.len() as u64,
    }
}

/// Opens a userfaultfd that has not settled what it will speak.
pub(crate) fn open(faults: Faults) -> Result<OwnedFd, KernelError> {
    let plain = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    let flags = match faults {
        Faults::OfPrograms => plain | UserfaultfdFlags::from_bits_retain(UFFD_USER_MODE_ONLY),
        Faults::OfSystemCallsToo => plain,
    };
    let mut opened = open_by_call(flags);
    if opened.as_ref().err() == Some(&Errno::INVAL) {
        // Before Linux 5.11 that flag was unknown, and the privilege as a rule not needed.
        opened = open_by_call(plain);
    }
    let errno = match opened {
        Ok(uffd) => return Ok(uffd),
        Err(errno) => errno,
    };
    // A seccomp profile may forbid the system call where the device was handed in.
    open_by_device(flags).map_err(|_no_device| KernelError::Unavailable {
        feature: match faults {
            Faults::OfPrograms => "userfaultfd",
            Faults::OfSystemCallsToo => "userfaultfd for the faults of system calls",
        },
        remedy: match (errno, faults) {
            (Errno::NOSYS, _) => "a kernel with CONFIG_USERFAULTFD",
            (Errno::PERM, Faults::OfSystemCallsToo) => {
                "CAP_SYS_PTRACE, or sysctl vm.unprivileged_userfaultfd=1, or leave to open /dev/userfaultfd \
                 (docker: --device /dev/userfaultfd)"
            }
            _ => {
                "allow the system call in the container's seccomp profile \
                 (docker: --security-opt seccomp=unconfined), or give it --device /dev/userfaultfd"
            }
        },
        source: errno.into(),
    })
}

fn open_by_call(flags: UserfaultfdFlags) -> Result<OwnedFd, Errno> {
    // SAFETY: a fresh userfaultfd watches nothing.
    unsafe { userfaultfd(flags) }
}

fn open_by_device(flags: UserfaultfdFlags) -> rustix::io::Result<OwnedFd> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/userfaultfd")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    // SAFETY: NEW takes the flags by value and answers a new descriptor.
    unsafe { ioctl(device.as_fd(), NewByDevice(flags)) }
}

/// `USERFAULTFD_IOC_NEW`: the argument is the flags themselves, the result is the descriptor.
struct NewByDevice(UserfaultfdFlags);

// SAFETY: the opcode takes a number, not a pointer, so nothing is read or written through it.
unsafe impl Ioctl for NewByDevice {
    type Output = OwnedFd;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        NEW
    }

    fn as_ptr(&mut self) -> *mut libc::c_void {
        ptr::without_provenance_mut(self.0.bits() as usize)
    }

    unsafe fn output_from_ptr(
        fd: IoctlOutput,
        _: *mut libc::c_void,
    ) -> rustix::io::Result<OwnedFd> {
        // SAFETY: a result that is no error is a descriptor that the kernel made for us just now.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_gives_what_the_system_call_gives() {
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        let uffd = match open_by_device(flags) {
            Ok(uffd) => uffd,
            Err(errno @ (Errno::ACCESS | Errno::NOENT)) => {
                eprintln!("skipped: /dev/userfaultfd cannot be opened here: {errno}");
                return;
            }
            Err(errno) => panic!("{errno}"),
        };
        let closes = rustix::io::fcntl_getfd(&uffd).unwrap();
        assert!(closes.contains(rustix::io::FdFlags::CLOEXEC));
        let features = u64::from(linux_raw_sys::general::UFFD_FEATURE_WP_ASYNC);
        Userfaultfd::settle(uffd, Owner::this_process(), features).unwrap();
    }
}
