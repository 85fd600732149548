//! For the tests of programs that use segvm: sessions that leave nothing behind, and programs that are killed.
//!
//! ```no_run
//! # fn main() -> Result<(), segvm::Error> {
//! let session = segvm::testing::scratch();
//! let count = session.root::<u64>("count")?;
//! *count.write() += 1;
//! session.checkpoint()?;
//! drop(count);
//! let session = session.reopened(); // as after a crash: what was not checkpointed is gone
//! assert_eq!(*session.root::<u64>("count")?.read(), 1);
//! # Ok(()) }
//! ```
//!
//! ```no_run
//! # fn main() -> Result<(), segvm::Error> {
//! // In a test of this name:
//! let session = segvm::testing::Lives::of("a_count_survives_kill_9")
//!     .life(|session| {
//!         let count = session.root::<u64>("count").unwrap();
//!         *count.write() += 1;
//!         session.checkpoint().unwrap();
//!     }) // a process of its own, killed here
//!     .survivor();
//! assert_eq!(*session.root::<u64>("count")?.read(), 1);
//! # Ok(()) }
//! ```
//!
//! Everything here panics where it fails, as tests do.

use std::{
    env, fs,
    hash::{BuildHasher, RandomState},
    io::{BufRead, BufReader},
    ops::Deref,
    path::{Path, PathBuf},
    process::{self, Child, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};

use crate::session::{Session, SessionOptions};

/// What a child is told: its test and which life of it, the store, the image.
const LIFE: &str = "SEGVM_TESTING_LIFE";
const STORE: &str = "SEGVM_TESTING_STORE";
const IMAGE: &str = "SEGVM_TESTING_IMAGE";
/// What a child says when its life may end.
const OVER: &str = "segvm-testing: kill me";
/// A life that goes on for longer than this hangs.
const LONGEST: Duration = Duration::from_secs(120);

/// A session of a new image in a temporary store with an address range of its own: many tests can have one each in one
/// process. The store is removed at the end.
///
/// - **Panics**: where no such session can be had.
#[must_use]
pub fn scratch() -> Scratch {
    let place = Place::new();
    place.open(SessionOptions::new())
}

/// As [`scratch`], opened with these options. The store is set already.
///
/// - **Panics**: as [`scratch`].
#[must_use]
pub fn scratch_with(options: SessionOptions) -> Scratch {
    let place = Place::new();
    place.open(options)
}

/// A session in a temporary store.
#[derive(Debug)]
pub struct Scratch {
    /// Before the place: a session's files go after it.
    session: Session,
    options: SessionOptions,
    place: Place,
}

impl Scratch {
    /// Ends the session as a crash would, without saving, and opens its image again.
    ///
    /// - **Panics**: if it cannot be opened.
    #[must_use]
    pub fn reopened(self) -> Self {
        let Self {
            session,
            options,
            place,
        } = self;
        drop(session);
        place.open(options)
    }

    /// The directory of its store.
    #[must_use]
    pub fn store(&self) -> &Path {
        &self.place.dir
    }
}

impl Deref for Scratch {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

/// A temporary store, removed at the end by who made it, and an image in it.
#[derive(Debug)]
struct Place {
    dir: PathBuf,
    image: String,
    /// In a child the store is its parent's.
    ours: bool,
}

impl Place {
    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let n = MADE.fetch_add(1, Ordering::Relaxed);
        let unique = RandomState::new().hash_one((process::id(), n));
        // The name decides the address: another one for each, so that they do not meet in one process.
        let image = format!("scratch-{}-{n}", process::id());
        let dir = env::temp_dir().join(format!("segvm-{image}-{unique:016x}"));
        if let Err(error) = fs::create_dir(&dir) {
            panic!("no temporary store at {}: {error}", dir.display());
        }
        Self {
            dir,
            image,
            ours: true,
        }
    }

    fn open(self, options: SessionOptions) -> Scratch {
        let options = options.store(&self.dir);
        match options.open(&self.image) {
            Ok(session) => Scratch {
                session,
                options,
                place: self,
            },
            Err(error) => panic!("image `{}` in {}: {error}", self.image, self.dir.display()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.ours {
            // What stays behind is in the directory for temporary files.
            let _stays = fs::remove_dir_all(&self.dir);
        }
    }
}

/// The lives of a program: each a process of its own on the same image, ended by `kill -9`.
///
/// A life runs in a child that is the same test once more: what the test does before it should be nothing else.
#[derive(Debug)]
#[must_use = "a program without a `survivor` shows nothing"]
pub struct Lives {
    test: String,
    place: Place,
    lived: u32,
    /// In a child: which life it is.
    now: Option<u32>,
}

impl Lives {
    /// Begins with an image that is not there yet. `test` is the test's full name, as `cargo test -- --list` prints it.
    ///
    /// - **Panics**: where no temporary store can be made.
    pub fn of(test: &str) -> Self {
        let told = env::var(LIFE).ok().and_then(|told| {
            let (of, life) = told.rsplit_once('#')?;
            let place = Place {
                dir: env::var_os(STORE)?.into(),
                image: env::var(IMAGE).ok()?,
                ours: false,
            };
            (of == test).then_some((place, life.parse().ok()?))
        });
        let (place, now) = match told {
            Some((place, life)) => (place, Some(life)),
            None => (Place::new(), None),
        };
        Self {
            test: test.to_owned(),
            place,
            lived: 0,
            now,
        }
    }

    /// One life: ended by `kill -9` when `life` returns.
    ///
    /// - **Panics**: if it ends by itself before, as when something in it panics; or goes on for two minutes.
    pub fn life(self, life: impl FnOnce(&Session)) -> Self {
        self.lived_until(None, life)
    }

    /// One life that ends `within` that time, wherever it is then; or when it returns.
    ///
    /// - **Panics**: if it ends by itself before.
    pub fn life_within(self, within: Duration, life: impl FnOnce(&Session)) -> Self {
        self.lived_until(Some(within), life)
    }

    /// Opens the image that the lives left.
    ///
    /// - **Panics**: if it cannot be opened.
    pub fn survivor(self) -> Scratch {
        self.place.open(SessionOptions::new())
    }

    fn lived_until(mut self, within: Option<Duration>, life: impl FnOnce(&Session)) -> Self {
        let this = self.lived;
        self.lived += 1;
        match self.now {
            None => self.kill(this, within),
            Some(now) if now == this => self.live(life),
            // An earlier one, that ended long ago.
            Some(_) => {}
        }
        self
    }

    /// In the child.
    fn live(&self, life: impl FnOnce(&Session)) {
        let options = SessionOptions::new().store(&self.place.dir);
        match options.open(&self.place.image) {
            Ok(session) => {
                life(&session);
                println!("{OVER}");
                loop {
                    thread::park();
                }
            }
            Err(error) => panic!("image `{}`: {error}", self.place.image),
        }
    }

    /// In the parent.
    fn kill(&self, life: u32, within: Option<Duration>) {
        let (mut child, output) = self.spawn(life);
        let words = listen(output);
        let mut said = String::new();
        let (longest, what) = match within {
            Some(within) => (within, None),
            None => (LONGEST, Some("hangs")),
        };
        let why = loop {
            match words.recv_timeout(longest) {
                Ok(line) if line.contains(OVER) => break None,
                Ok(line) => said.extend([line.as_str(), "\n"]),
                Err(RecvTimeoutError::Timeout) => break what,
                Err(RecvTimeoutError::Disconnected) => break Some("ended by itself"),
            }
        };
        // One that is gone already is told by `why`.
        let _gone = child.kill();
        let status = child.wait();
        if let Some(why) = why {
            panic!(
                "life {life} of `{}` {why} ({status:?}); it said:\n{said}",
                self.test
            );
        }
    }

    fn spawn(&self, life: u32) -> (Child, ChildStdout) {
        let spawned = env::current_exe().and_then(|program| {
            Command::new(program)
                .args([&self.test, "--exact", "--nocapture", "--test-threads=1"])
                .env(LIFE, format!("{}#{life}", self.test))
                .env(STORE, &self.place.dir)
                .env(IMAGE, &self.place.image)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
        });
        let piped = spawned.map(|mut child| (child.stdout.take(), child));
        match piped {
            Ok((Some(output), child)) => (child, output),
            Ok((None, _)) => panic!("no pipe to a child"),
            Err(error) => panic!("no child: {error}"),
        }
    }
}

/// What a child says, line by line. The other end goes when it does.
fn listen(output: ChildStdout) -> Receiver<String> {
    let (tell, told) = unbounded();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    told
}
