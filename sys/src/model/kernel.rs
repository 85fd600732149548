//! The model itself: one lock around memory and planned failures, and what a test may do with it.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;

use super::{
    faults::{Faults, ModelCall},
    memory::{Memory, ModelFault, ModelPage},
};
use crate::page::{PageRange, PageSize};

/// Called before what a copy takes.
type CopyHook = Box<dyn FnMut(&ModelKernel, PageRange) + Send>;

/// Memory in plain maps, as a [`Kernel`](crate::Kernel). A clone is the same memory.
#[derive(Clone)]
pub struct ModelKernel {
    inner: Arc<Inner>,
}

struct Inner {
    /// A leaf in the order of locks; not held while a hook runs.
    state: Mutex<State>,
    /// Taken out while it runs, so that a hook that copies does not call itself.
    hook: Mutex<Option<CopyHook>>,
    /// As `hook`.
    quiet_hook: Mutex<Option<CopyHook>>,
}

pub(super) struct State {
    pub(super) memory: Memory,
    pub(super) faults: Faults,
    /// How many watches were made.
    pub(super) watches: u64,
    /// How many there are.
    pub(super) watching: u64,
}

impl ModelKernel {
    /// Makes an empty address space with pages of 4 KiB.
    #[must_use]
    pub fn new() -> Self {
        Self::with_page_size(PageSize::MIN)
    }

    /// Makes an empty address space.
    #[must_use]
    pub fn with_page_size(page: PageSize) -> Self {
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(State {
                    memory: Memory::new(page),
                    faults: Faults::default(),
                    watches: 0,
                    watching: 0,
                }),
                hook: Mutex::new(None),
                quiet_hook: Mutex::new(None),
            }),
        }
    }

    pub(super) fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.inner.state.lock()
    }

    /// Reads memory as the program.
    ///
    /// - **Errors**: the signal that a real program would get; nothing is undone.
    pub fn read(&self, at: usize, buf: &mut [u8]) -> Result<(), ModelFault> {
        self.state().memory.read(at, buf)
    }

    /// Writes memory as the program.
    ///
    /// - **Errors**: the signal that a real program would get; pages before it stay written.
    pub fn write(&self, at: usize, bytes: &[u8]) -> Result<(), ModelFault> {
        self.state().memory.write(at, bytes)
    }

    /// Tells the state of the page that `at` lies in.
    #[must_use]
    pub fn page(&self, at: usize) -> ModelPage {
        self.state().memory.state(at)
    }

    /// Tells whether the page that `at` lies in is write-protected.
    #[must_use]
    pub fn is_armed(&self, at: usize) -> bool {
        self.state().memory.is_armed(at)
    }

    /// Tells whether the page that `at` lies in is kept out of core dumps and forked children.
    #[must_use]
    pub fn is_secluded(&self, at: usize) -> bool {
        let state = self.state();
        state
            .memory
            .region(at)
            .is_some_and(|region| region.secluded)
    }

    /// How many bytes are mapped for reading or writing.
    #[must_use]
    pub fn accessible(&self) -> usize {
        self.state().memory.accessible()
    }

    /// How many watches there are.
    #[must_use]
    pub fn watching(&self) -> u64 {
        self.state().watching
    }

    /// Lets the `nth` call from now fail with `errno`, whichever it is; 1 is the next one.
    ///
    /// A scan that fails has armed the first half of its range, if its query arms.
    pub fn fail_nth(&self, nth: u64, errno: i32) {
        self.state().faults.plan(None, nth, errno);
    }

    /// Lets the `nth` call of this kind from now fail with `errno`.
    pub fn fail_nth_of(&self, call: ModelCall, nth: u64, errno: i32) {
        self.state().faults.plan(Some(call), nth, errno);
    }

    /// Forgets all failures that were planned and have not come.
    pub fn stop_failing(&self) {
        self.state().faults.clear();
    }

    /// How many calls there were.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().faults.calls()
    }

    /// Lets `hook` run before each page that [`copy_racing`](crate::Kernel::copy_racing) takes: it plays the program
    /// that writes meanwhile.
    pub fn on_copy(&self, hook: impl FnMut(&ModelKernel, PageRange) + Send + 'static) {
        *self.inner.hook.lock() = Some(Box::new(hook));
    }

    /// Lets `hook` run before each range that [`copy_quiet`](crate::Kernel::copy_quiet) takes: it plays whoever writes although
    /// nobody may, such as a transfer that is still in flight.
    pub fn on_quiet_copy(&self, hook: impl FnMut(&ModelKernel, PageRange) + Send + 'static) {
        *self.inner.quiet_hook.lock() = Some(Box::new(hook));
    }

    pub(super) fn run_hook(&self, page: PageRange) {
        self.run(&self.inner.hook, page);
    }

    pub(super) fn run_quiet_hook(&self, range: PageRange) {
        self.run(&self.inner.quiet_hook, range);
    }

    fn run(&self, slot: &Mutex<Option<CopyHook>>, range: PageRange) {
        let taken = slot.lock().take();
        if let Some(mut hook) = taken {
            hook(self, range);
            // Unless it was replaced meanwhile.
            slot.lock().get_or_insert(hook);
        }
    }
}

impl Default for ModelKernel {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ModelKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelKernel")
            .field("page", &self.state().memory.page_size())
            .field("calls", &self.calls())
            .finish_non_exhaustive()
    }
}
