//! The outside world as a session sees it: memory, files, time, and who holds which addresses.
//!
//! One value, so that a whole session runs on doubles: a model kernel, a crashing disk, a clock that a test moves.

use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use segvm_blockcache::disk::{Disk, RealDisk};
use segvm_os::{Kernel, KernelError, RealKernel};

use crate::segment::ranges::Ranges;

/// The seams through which a session reaches everything outside itself.
#[derive(Clone, Debug)]
pub struct World {
    pub(crate) kernel: Arc<dyn Kernel>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) now: fn() -> SystemTime,
    /// Which session of this process holds which addresses; shared by all worlds with the same kernel.
    pub(crate) ranges: Arc<Ranges>,
}

impl World {
    /// This machine: its kernel, its file systems, its clock.
    ///
    /// - **Cost**: the first call of a process asks the kernel what it offers; later ones are free.
    pub fn real() -> Result<Self, KernelError> {
        static REAL: OnceLock<World> = OnceLock::new();
        if let Some(world) = REAL.get() {
            return Ok(world.clone());
        }
        let mut made = Self::with(Arc::new(RealKernel::new()?), Arc::new(RealDisk));
        made.ranges = Arc::new(Ranges::real());
        Ok(REAL.get_or_init(|| made).clone())
    }

    /// A world of the given memory and files, with this machine's clock.
    pub fn with(kernel: Arc<dyn Kernel>, disk: Arc<dyn Disk>) -> Self {
        Self {
            kernel,
            disk,
            now: SystemTime::now,
            ranges: Arc::default(),
        }
    }

    /// The same memory (and claims on it) with other files, as after a power cut in a simulation.
    #[must_use]
    pub fn with_disk(&self, disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            ..self.clone()
        }
    }
}
