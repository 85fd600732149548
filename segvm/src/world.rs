//! The outside world as a session sees it: memory, files, time, and who holds which addresses.
//!
//! One value, so that a whole session runs on doubles: a model kernel, a crashing disk, a clock that a test moves.

use std::{
    collections::BTreeMap,
    env,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use parking_lot::Mutex;

use segvm_blockcache::disk::{Disk, RealDisk};
use segvm_os::{Engine, Kernel, KernelError, UnknownEngine, best_engine, open_engine};

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

/// Why this machine's memory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// `SEGVM_ENGINE` names none.
    #[error("SEGVM_ENGINE: {0}")]
    UnknownEngine(#[from] UnknownEngine),
    /// The engine that was asked for does not work here.
    #[error("the engine {engine}, which was asked for, does not work here: {source}")]
    Engine {
        /// Which.
        engine: Engine,
        /// What it lacks, and the remedy.
        source: KernelError,
    },
    /// No engine works here.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl World {
    /// This machine: its kernel, its file systems, its clock.
    ///
    /// What was written is found out by the engine that `SEGVM_ENGINE` names (`wp-async`, `wp-sync`, `mprotect`), else by the best one that
    /// works here.
    ///
    /// - **Cost**: the first call of a process asks the kernel what it offers; later ones are free.
    pub fn real() -> Result<Self, WorldError> {
        static CHOSEN: OnceLock<Engine> = OnceLock::new();
        if let Some(engine) = CHOSEN.get() {
            return Self::real_with(*engine);
        }
        let engine = match env::var("SEGVM_ENGINE") {
            Ok(name) if !name.is_empty() => name.parse()?,
            Err(env::VarError::NotUnicode(name)) => {
                let name = name.to_string_lossy().into_owned();
                return Err(UnknownEngine { name }.into());
            }
            _unset => best_engine()?.0,
        };
        let world = Self::real_with(engine)?;
        let _same = CHOSEN.set(engine);
        Ok(world)
    }

    /// As [`real`](World::real), by this engine.
    ///
    /// - **Errors**: [`WorldError::Engine`] where this machine lacks it.
    pub fn real_with(engine: Engine) -> Result<Self, WorldError> {
        // Addresses are the process's: whoever holds them holds them from every engine.
        static RANGES: OnceLock<Arc<Ranges>> = OnceLock::new();
        static WORLDS: Mutex<BTreeMap<Engine, World>> = Mutex::new(BTreeMap::new());
        let mut worlds = WORLDS.lock();
        if let Some(world) = worlds.get(&engine) {
            return Ok(world.clone());
        }
        let kernel = open_engine(engine).map_err(|source| WorldError::Engine { engine, source })?;
        let mut made = Self::with(kernel, Arc::new(RealDisk));
        made.ranges = Arc::clone(RANGES.get_or_init(|| Arc::new(Ranges::real())));
        worlds.insert(engine, made.clone());
        Ok(made)
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
