//! How an image is opened.

use std::{env, path::PathBuf, time::Duration};

use super::{Opening, Session, error::OpenError};
use crate::world::World;

/// Options for opening an image; [`Session::open`] is the one with defaults.
///
/// ```no_run
/// # fn main() -> Result<(), segvm::Error> {
/// let session = segvm::SessionOptions::new().store("/var/lib/app/state").open("app")?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    store: Option<PathBuf>,
    gate_timeout: Option<Duration>,
    world: Option<World>,
    any_program: bool,
}

impl SessionOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the image in this directory instead of `$SEGVM_HOME`, else `$XDG_DATA_HOME/segvm`, else
    /// `~/.local/share/segvm`.
    #[must_use]
    pub fn store(mut self, directory: impl Into<PathBuf>) -> Self {
        self.store = Some(directory.into());
        self
    }

    /// How long a checkpoint waits for guards to be dropped before it fails and names who holds them (10 s).
    #[must_use]
    pub fn gate_timeout(mut self, timeout: Duration) -> Self {
        self.gate_timeout = Some(timeout);
        self
    }

    /// Opens the image although another program made its newest checkpoint. Without this it is refused.
    #[must_use]
    pub fn any_program(mut self) -> Self {
        self.any_program = true;
        self
    }

    /// Runs the session on other memory and files: for simulations.
    #[must_use]
    pub fn world(mut self, world: World) -> Self {
        self.world = Some(world);
        self
    }

    /// Opens the image, or makes it, as its writer.
    ///
    /// - **Cost**: O(segments + runs that they lie in); the content is not read.
    /// - **Errors**: [`OpenError::Lease`] at once if another writer has it, naming its pid, host, program and since when.
    pub fn open(&self, image: &str) -> Result<Session, OpenError> {
        let world = match &self.world {
            Some(world) => world.clone(),
            None => World::real()?,
        };
        let store = match &self.store {
            Some(store) => store.clone(),
            None => default_store().ok_or(OpenError::NoStore)?,
        };
        let opening = Opening {
            gate_timeout: self.gate_timeout.unwrap_or(Duration::from_secs(10)),
            any_program: self.any_program,
        };
        Session::open_in(world, store, image, opening)
    }
}

/// Where images are kept unless told otherwise.
#[must_use]
pub fn default_store() -> Option<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("SEGVM_HOME")
        .or_else(|| set("XDG_DATA_HOME").map(|data| data.join("segvm")))
        .or_else(|| set("HOME").map(|home| home.join(".local/share/segvm")))
}
