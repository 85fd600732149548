//! userfaultfd in asynchronous write-protect mode: arming pages, and installing armed ones. Linux 6.7.
//!
//! The kernel itself lifts the protection of an armed page when it is written, for system calls that write into it
//! as well, so no thread ever waits for us and nothing is read from the descriptor. That is also why
//! `UFFD_USER_MODE_ONLY` is enough, which needs no privilege.

use std::{
    fs::OpenOptions,
    os::fd::{AsFd, FromRawFd, OwnedFd},
    ptr, thread,
};

use linux_raw_sys::general::{
    UFFD_API, UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_FEATURE_WP_ASYNC, UFFD_FEATURE_WP_UNPOPULATED,
    UFFD_USER_MODE_ONLY, UFFDIO_COPY_MODE_WP, UFFDIO_REGISTER_MODE_WP, uffdio_api, uffdio_copy,
    uffdio_range, uffdio_register, uffdio_writeprotect,
};
use rustix::{
    io::Errno,
    ioctl::{Ioctl, IoctlOutput, Opcode, Setter, Updater, ioctl, opcode},
    mm::{UserfaultfdFlags, userfaultfd},
};

use super::{failed, owner::Owner};
use crate::{
    kernel::{KernelError, Watch},
    page::{PageRange, PageSize},
};

const TYPE: u8 = 0xAA;
const API: Opcode = opcode::read_write::<uffdio_api>(TYPE, 0x3F);
const REGISTER: Opcode = opcode::read_write::<uffdio_register>(TYPE, 0x00);
const UNREGISTER: Opcode = opcode::read::<uffdio_range>(TYPE, 0x01);
const COPY: Opcode = opcode::read_write::<uffdio_copy>(TYPE, 0x03);
const WRITEPROTECT: Opcode = opcode::read_write::<uffdio_writeprotect>(TYPE, 0x06);
/// `USERFAULTFD_IOC_NEW`, on `/dev/userfaultfd`.
const NEW: Opcode = opcode::none(TYPE, 0x00);
/// `UFFDIO_WRITEPROTECT_MODE_WP`.
const MODE_WP: u64 = 1;

/// WP_UNPOPULATED makes arming hold for pages that are not there yet: without it, the first write to one is unseen.
const FEATURES: u64 =
    (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC) as u64;

/// How often a call is tried again while the kernel says that the memory map is changing.
const TRIES: usize = 10_000;

/// The [`Watch`] of the real kernel.
#[derive(Debug)]
pub(super) struct AsyncWatch {
    /// Speaks the API with [`FEATURES`]. Closing it disarms everything; in a forked child it closes a copy only.
    uffd: OwnedFd,
    page: PageSize,
    owner: Owner,
}

impl AsyncWatch {
    pub(super) fn open(page: PageSize, owner: Owner) -> Result<Self, KernelError> {
        let uffd = open()?;
        settle(&uffd).map_err(no_async)?;
        Ok(Self { uffd, page, owner })
    }

    /// Runs `call` until it does something other than ask for patience.
    fn persist(
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
            match call(&self.uffd) {
                Err(Errno::AGAIN | Errno::INTR) => thread::yield_now(),
                done => return done.map_err(|errno| failed(name, range, errno)),
            }
        }
        Err(failed(name, range, Errno::AGAIN))
    }
}

/// Settles with the kernel that the descriptor speaks the API with [`FEATURES`].
fn settle(uffd: &OwnedFd) -> Result<(), Errno> {
    let mut api = uffdio_api {
        api: u64::from(UFFD_API),
        features: FEATURES,
        ioctls: 0,
    };
    // SAFETY: API reads and writes a uffdio_api.
    let call = unsafe { Updater::<API, _>::new(&mut api) };
    // SAFETY: on a descriptor without registrations this only settles what it will speak.
    unsafe { ioctl(uffd, call) }?;
    // What comes back are all features the kernel has. It must not be used for another handshake: that would switch
    // on every event, and the next munmap would wait for a reader.
    if api.features & FEATURES == FEATURES {
        Ok(())
    } else {
        Err(Errno::NOTSUP)
    }
}

fn no_async(errno: Errno) -> KernelError {
    KernelError::Unavailable {
        feature: "userfaultfd with asynchronous write-protection",
        remedy: "Linux 6.7 or newer, built with CONFIG_PTE_MARKER_UFFD_WP",
        source: errno.into(),
    }
}

/// Opens a userfaultfd that has not settled what it will speak, without privilege if possible.
pub(crate) fn open() -> Result<OwnedFd, KernelError> {
    let flags = UserfaultfdFlags::CLOEXEC
        | UserfaultfdFlags::NONBLOCK
        | UserfaultfdFlags::from_bits_retain(UFFD_USER_MODE_ONLY);
    // SAFETY: a fresh userfaultfd watches nothing.
    let errno = match unsafe { userfaultfd(flags) } {
        Ok(uffd) => return Ok(uffd),
        Err(errno) => errno,
    };
    // A seccomp profile may forbid the system call where the device was handed in.
    open_by_device(flags).map_err(|_no_device| KernelError::Unavailable {
        feature: "userfaultfd",
        remedy: match errno {
            Errno::NOSYS => "a kernel with CONFIG_USERFAULTFD",
            _ => {
                "allow the system call in the container's seccomp profile \
                 (docker: --security-opt seccomp=unconfined), or give it --device /dev/userfaultfd"
            }
        },
        source: errno.into(),
    })
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

fn uffdio(range: PageRange) -> uffdio_range {
    uffdio_range {
        start: range.start() as u64,
        len: range.len() as u64,
    }
}

impl Watch for AsyncWatch {
    unsafe fn register(&self, range: PageRange) -> Result<(), KernelError> {
        self.persist("ioctl(UFFDIO_REGISTER)", range, |uffd| {
            let mut arg = uffdio_register {
                range: uffdio(range),
                mode: u64::from(UFFDIO_REGISTER_MODE_WP),
                ioctls: 0,
            };
            // SAFETY: REGISTER reads and writes a uffdio_register.
            let call = unsafe { Updater::<REGISTER, _>::new(&mut arg) };
            // SAFETY: the caller owns the range; asynchronous write-protection changes no byte and blocks nobody.
            unsafe { ioctl(uffd, call) }
        })
    }

    unsafe fn unregister(&self, range: PageRange) -> Result<(), KernelError> {
        self.persist("ioctl(UFFDIO_UNREGISTER)", range, |uffd| {
            // SAFETY: UNREGISTER reads a uffdio_range.
            let call = unsafe { Setter::<UNREGISTER, _>::new(uffdio(range)) };
            // SAFETY: the caller owns the range; its bytes stay as they are.
            unsafe { ioctl(uffd, call) }
        })
    }

    unsafe fn arm(&self, range: PageRange) -> Result<(), KernelError> {
        self.persist("ioctl(UFFDIO_WRITEPROTECT)", range, |uffd| {
            let mut arg = uffdio_writeprotect {
                range: uffdio(range),
                mode: MODE_WP,
            };
            // SAFETY: WRITEPROTECT reads (and is declared to write) a uffdio_writeprotect.
            let call = unsafe { Updater::<WRITEPROTECT, _>::new(&mut arg) };
            // SAFETY: the caller owns the range; the kernel lifts the protection by itself on the next write.
            unsafe { ioctl(uffd, call) }
        })
    }

    unsafe fn install(&self, at: usize, bytes: &[u8]) -> Result<(), KernelError> {
        let range = PageRange::new(self.page, at, bytes.len());
        let range = range.expect("whole pages are installed, at the address of a page");
        let mut rest = bytes;
        self.persist("ioctl(UFFDIO_COPY)", range, |uffd| {
            let done = bytes.len() - rest.len();
            let mut arg = uffdio_copy {
                dst: (at + done) as u64,
                src: rest.as_ptr().expose_provenance() as u64,
                len: rest.len() as u64,
                mode: u64::from(UFFDIO_COPY_MODE_WP),
                copy: 0,
            };
            // SAFETY: COPY reads and writes a uffdio_copy.
            let call = unsafe { Updater::<COPY, _>::new(&mut arg) };
            // SAFETY: the source is a live slice of that length; the caller owns the destination, and the kernel
            // fills only pages that are not there.
            let result = unsafe { ioctl(uffd, call) };
            // A copy that stopped in the middle says EAGAIN, and how far it came; a negative count is an errno.
            if let Some(left) = usize::try_from(arg.copy).ok().and_then(|n| rest.get(n..)) {
                rest = left;
            }
            if result == Err(Errno::AGAIN) && rest.is_empty() {
                return Ok(());
            }
            result
        })
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
        settle(&uffd).unwrap();
        let closes = rustix::io::fcntl_getfd(&uffd).unwrap();
        assert!(closes.contains(rustix::io::FdFlags::CLOEXEC));
    }
}
