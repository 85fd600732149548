//! A session: one process's open image.
//!
//! | room | for |
//! |---|---|
//! | `options` | how an image is opened |
//! | `plan` | how content is brought back in a bounded number of maps |
//! | `resume` | bringing it back |
//! | `core` | what a session is made of |
//! | `background` | checkpoints beside the program: handles, automatic ones |
//! | `close` | how a session ends: suspended, or dropped |
//! | `error` | why it could not be opened |

mod background;
mod close;
pub(crate) mod core;
mod error;
mod options;
mod plan;
mod resume;

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use segvm_blockcache::{CommitId, Layout, Marks, Store, Tree};
use segvm_home::{Commit, DirHome, Holder, Home, ImageName, Record, SegmentKind, Timestamp};
use segvm_os::PageRange;

use self::{
    background::Background,
    core::{Core, State},
};
pub use self::{
    background::{Automatic, Checkpoint},
    error::{Error, OpenError, SuspendError},
    options::{SessionOptions, default_store},
};
use crate::{
    checkpoint::{self, CheckpointError, Rounds, Saved, Staging},
    dirty::{Share, Tracker},
    gate::{Closing, Gate, GateError, Kind, Pass},
    heap::Heap,
    persist::Persist,
    root::{HeapShared, Root},
    segment::{
        Segment, SegmentOptions,
        ranges::Owner,
        space::SegmentSpace,
        state::{Shared, State as SegmentState},
    },
    world::World,
};

/// What a session is opened with, defaults filled in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) gate_timeout: Duration,
    pub(crate) any_program: bool,
}

/// The segment that roots live in unless the program says otherwise.
const HEAP: &str = "heap";

/// One process's open image, as its writer.
///
/// Dropping it is a crash with manners: background work is joined, nothing is saved, the lease is released. Only
/// [`suspend`](Session::suspend) saves and ends.
pub struct Session {
    core: Arc<Core>,
    background: Mutex<Option<Background>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("image", &self.core.image)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Opens the image in the default store, or makes it.
    ///
    /// - **Cost**: under a millisecond more than a bare open, mmap and read, whatever the size.
    /// - **Errors**: see [`SessionOptions::open`].
    pub fn open(image: &str) -> Result<Self, OpenError> {
        SessionOptions::new().open(image)
    }

    pub(crate) fn open_in(
        world: World,
        directory: PathBuf,
        image: &str,
        opening: Opening,
    ) -> Result<Self, OpenError> {
        let image: ImageName = image.parse()?;
        let store = Store::open(Arc::clone(&world.disk), directory.clone())?;
        let home = DirHome::open(Arc::clone(&world.disk), directory);
        let holder = this_process(&world);
        let lease = home.acquire(&image, holder.clone())?;
        let head = lease.head().cloned();
        if let Some(head) = &head {
            check_machine(&world, &image, head)?;
            if !opening.any_program && head.commit.program != holder.program {
                return Err(OpenError::OtherProgram {
                    image: image.to_string(),
                    made: head.commit.program.clone(),
                    here: holder.program,
                });
            }
            // The lease is ours, so whoever appended to these packs is gone; unless it was stolen from and does not know yet.
            for &mark in Marks::decode(&head.mark)?.list() {
                if let Some(&pid) = lease.fenced_alive().first()
                    && !store.has_sealed(mark.pack)
                {
                    return Err(OpenError::StolenFrom {
                        image: image.to_string(),
                        pid,
                    });
                }
                store.adopt(mark)?;
            }
        }
        let core = Arc::new(Core {
            store,
            home,
            image,
            gate: Gate::new(),
            gate_timeout: opening.gate_timeout,
            holder,
            owner: std::process::id(),
            newest: Mutex::new(head.as_ref().map(|head| head.commit_id)),
            state: Mutex::new(None),
            arrivals: Mutex::default(),
            segments: Mutex::default(),
            heaps: Mutex::default(),
            maps: Arc::default(),
            world,
        });
        let session = Self {
            core,
            background: Mutex::new(None),
        };
        let records = head
            .as_ref()
            .map(|head| head.commit.segments.clone())
            .unwrap_or_default();
        let generation = head.as_ref().map_or(1, |head| head.commit.generation + 1);
        // The state comes first: if a segment fails to come back, dropping the session gives back those before.
        *session.core.state.lock() = Some(State {
            lease,
            head,
            segments: Vec::new(),
            writer: None,
            orphans: Marks::default(),
            staging: Staging::default(),
            extents_owed: 0,
            extents_saved: Vec::new(),
            generation,
            instant: SystemTime::UNIX_EPOCH,
            broken: None,
            restored_from: None,
        });
        let plans = plan::plan(&session.core.store, &records.iter().collect::<Vec<_>>())?;
        for (record, plan) in records.iter().zip(plans) {
            let owner = session.owner_of(&record.name);
            let tracker = session.tracker()?;
            let core = &session.core;
            let segment = resume::attach(&core.world, &core.store, &owner, record, plan, tracker)?;
            session.enlist(segment, true);
        }
        Ok(session)
    }

    fn owner_of(&self, segment: &str) -> Owner {
        Owner {
            store: self.core.store.root().to_owned(),
            image: self.core.image.to_string(),
            segment: segment.to_owned(),
        }
    }

    fn tracker(&self) -> Result<Tracker, OpenError> {
        let kernel = &self.core.world.kernel;
        let share = Share::new(Arc::clone(&self.core.maps));
        Ok(Tracker::new(
            Arc::clone(kernel),
            Arc::from(kernel.watch()?),
            share,
        ))
    }

    /// Makes a segment part of the session.
    fn enlist(&self, segment: SegmentState, attached: bool) {
        let shared = Arc::clone(&segment.shared);
        self.core
            .segments
            .lock()
            .insert(shared.name.clone(), shared);
        if attached {
            if let Some(state) = self.core.state.lock().as_mut() {
                state.segments.push(segment);
            }
        } else {
            // Not by the state lock: a checkpoint may hold it while it waits for a guard of this very thread.
            self.core.arrivals.lock().push(segment);
        }
    }

    /// The image's name.
    #[must_use]
    pub fn image(&self) -> &str {
        self.core.image.as_str()
    }

    /// Tells whether the image had no checkpoint when this session opened it.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.core.segments.lock().is_empty() && self.head().is_none()
    }

    /// The newest checkpoint, if there is one.
    #[must_use]
    pub fn head(&self) -> Option<CommitId> {
        *self.core.newest.lock()
    }

    /// Finds a root by name in the session's heap; one that is not there yet begins as all zeros, which is the empty
    /// value of every type that can live there.
    ///
    /// - **Errors**: [`Error::Root`] if it was made as another type.
    pub fn root<T: Persist>(&self, name: &str) -> Result<Root<T>, Error> {
        Ok(self.heap(HEAP)?.root(name)?)
    }

    /// The heap in the segment of that name, made if it is not there.
    pub fn heap(&self, segment: &str) -> Result<Arc<HeapShared>, OpenError> {
        self.core.check_process()?;
        // A checkpoint between a segment's making and its heap's would save a heap without a header. The pass comes before
        // the lock: whoever waits for the gate holds no lock.
        let gate = &self.core.gate;
        let _pass = gate.enter(Kind::Write, gate.label(segment))?;
        let mut heaps = self.core.heaps.lock();
        if let Some(heap) = heaps.get(segment) {
            return Ok(Arc::clone(heap));
        }
        let in_heap = |source| OpenError::Heap {
            segment: segment.to_owned(),
            source,
        };
        let known = self.core.segments.lock().get(segment).cloned();
        let heap = match known {
            Some(shared) => {
                self.check_kind(&shared, SegmentKind::Heap)?;
                Heap::open(SegmentSpace::boxed(shared)).map_err(in_heap)?
            }
            None => {
                let shared = self.create(segment, SegmentKind::Heap, &SegmentOptions::default())?;
                Heap::create(SegmentSpace::boxed(shared), seed(&self.core.world))
                    .map_err(in_heap)?
            }
        };
        let heap = HeapShared::new(
            heap,
            Arc::clone(&self.core.gate),
            self.core.image.to_string(),
            segment.to_owned(),
        );
        heaps.insert(segment.to_owned(), Arc::clone(&heap));
        Ok(heap)
    }

    /// A segment of raw bytes by name: at least `len` long, made with default options if it is not there.
    pub fn segment(&self, name: &str, len: usize) -> Result<Segment, OpenError> {
        self.segment_with(name, len, &SegmentOptions::default())
    }

    /// As [`segment`](Session::segment), with options for when it is made.
    ///
    /// - **Errors**: [`OpenError::OtherSegment`] if it exists with another block size, base or kind,
    ///   [`OpenError::OtherFingerprint`] if its bytes are recorded to mean something else.
    pub fn segment_with(
        &self,
        name: &str,
        len: usize,
        options: &SegmentOptions,
    ) -> Result<Segment, OpenError> {
        self.core.check_process()?;
        let known = self.core.segments.lock().get(name).cloned();
        let shared = match known {
            Some(shared) => {
                self.check_kind(&shared, SegmentKind::Raw)?;
                options.check(self.image(), &shared)?;
                shared
            }
            None => self.create(name, SegmentKind::Raw, options)?,
        };
        let segment = Segment::new(Arc::clone(&self.core), shared);
        segment.grow(len)?;
        Ok(segment)
    }

    fn check_kind(&self, shared: &Shared, wanted: SegmentKind) -> Result<(), OpenError> {
        if shared.kind == wanted {
            return Ok(());
        }
        Err(OpenError::OtherSegment {
            image: self.image().to_owned(),
            segment: shared.name.clone(),
            has: format!("{:?} content", shared.kind),
            wanted: format!("{wanted:?} content"),
        })
    }

    fn create(
        &self,
        name: &str,
        kind: SegmentKind,
        options: &SegmentOptions,
    ) -> Result<Arc<Shared>, OpenError> {
        let world = &self.core.world;
        let owner = self.owner_of(name);
        let size = options.size(name, world.kernel.page_size())?;
        let len = options.reserved(size);
        let range = match options.base_address() {
            Some(base) => {
                let range =
                    PageRange::new(world.kernel.page_size(), base, len).ok_or_else(|| {
                        OpenError::BadRecord {
                            segment: name.to_owned(),
                        }
                    })?;
                world.ranges.claim(&*world.kernel, range, &owner)?;
                range
            }
            None => world.ranges.claim_any(&*world.kernel, len, &owner)?,
        };
        let tracker = self.tracker()?;
        let shared = Arc::new(Shared::new(
            Arc::clone(&world.kernel),
            tracker.watch(),
            name.to_owned(),
            kind,
            size,
            options.meaning(),
            range,
        ));
        self.enlist(
            SegmentState {
                shared: Arc::clone(&shared),
                tracker,
                tree: Tree::new(size, 0).map_err(|source| OpenError::Tree {
                    segment: name.to_owned(),
                    source,
                })?,
                layout: Layout::new(size),
                collected_len: 0,
                pending: Vec::new(),
                collected: Vec::new(),
                undo: Vec::new(),
            },
            false,
        );
        Ok(shared)
    }

    /// Enters the gate as a writer: while the pass lives, no checkpoint takes its instant. For changes to raw segments.
    pub fn enter(&self) -> Result<Pass<'_>, GateError> {
        self.core
            .gate
            .enter(Kind::Write, self.core.gate.label("raw memory"))
    }

    /// Captures every segment at one instant and makes the result durable in the local store.
    ///
    /// - **Cost**: O(dirty blocks). Writers wait for the residue's copy only, never for hashing or disk.
    /// - **Durable**: on `Ok`, yes. On `Err` the newest checkpoint is the one before.
    /// - **Blocks**: on the disk, and on another checkpoint of this session.
    /// - **Errors**: [`CheckpointError::Gate`] if this thread holds a guard, or another one does for too long.
    pub fn checkpoint(&self) -> Result<Saved, CheckpointError> {
        self.checkpoint_with(Rounds::Auto)
    }

    /// As [`checkpoint`](Session::checkpoint), saying how rounds are used.
    pub fn checkpoint_with(&self, rounds: Rounds) -> Result<Saved, CheckpointError> {
        let saved = background::checkpoint_now(&self.core, rounds, &|_| ())?;
        if checkpoint::is_fragmented(&self.core) {
            self.background().lay_out(saved.to_lay_out);
        }
        Ok(saved)
    }

    /// Begins a checkpoint on the session's own thread and returns at once.
    pub fn start_checkpoint(&self) -> Result<Checkpoint, CheckpointError> {
        self.core.check_process()?;
        Ok(self.background().start())
    }

    /// Checkpoints by itself from now on, every `interval` if anything changed; errors go to stderr unless
    /// [`automatic`](Session::automatic) says otherwise.
    pub fn checkpoint_every(&self, interval: Duration) -> Result<(), CheckpointError> {
        self.automatic(Automatic::every(interval))
    }

    /// Checkpoints by itself from now on, as `when` says; replaces what was said before.
    ///
    /// The gate decides the instant: changes to raw segments must be made inside [`enter`](Session::enter).
    pub fn automatic(&self, when: Automatic) -> Result<(), CheckpointError> {
        self.core.check_process()?;
        self.background().automatic(when);
        Ok(())
    }

    fn background(&self) -> parking_lot::MappedMutexGuard<'_, Background> {
        parking_lot::MutexGuard::map(self.background.lock(), |background| {
            background.get_or_insert_with(|| Background::new(&self.core))
        })
    }

    /// Goes back to an older checkpoint of the image; what changed since the newest one is given up.
    ///
    /// `reference` is what follows `@` in a name: `-1` for the one before the newest, or a commit's first digits.
    ///
    /// Segments have the lengths they had: see [`Segment::len`].
    ///
    /// - **Durable**: the image's line is as before until the next checkpoint, which notes where it was restored from.
    /// - **Errors**: with the gate still held by a guard; or where a segment did not exist then.
    pub fn restore(&self, reference: &str) -> Result<CommitId, OpenError> {
        self.core.check_process()?;
        let core = &self.core;
        core.gate.check_here(Closing::Everybody)?;
        let mut slot = core.state.lock();
        let state = slot.as_mut().ok_or(CheckpointError::Closed)?;
        state.check_usable(core)?;
        let now = Timestamp::from((core.world.now)());
        let record = core.home.resolve(&core.image, &reference.parse()?, now)?;
        check_machine(&core.world, &core.image, &record)?;
        let _closed = core
            .gate
            .close_even_if_poisoned(Closing::Everybody, core.gate_timeout)?;
        // Only sealed packs can be mapped.
        state.seal()?;
        let mut then = Vec::with_capacity(state.segments.len());
        for segment in &state.segments {
            let name = &segment.shared.name;
            let record_then = record
                .commit
                .segments
                .iter()
                .find(|then| then.name == *name);
            then.push(record_then.ok_or_else(|| OpenError::NoSegmentThen {
                segment: name.clone(),
                commit: record.commit_id,
            })?);
        }
        let plans = plan::plan(&core.store, &then)?;
        for ((segment, then), plan) in state.segments.iter_mut().zip(then).zip(plans) {
            if let Err(error) = resume::show(&core.world, &core.store, segment, then, plan) {
                // Some segments show the old state and some the new: no checkpoint may mix them.
                state.broken = Some(format!(
                    "restore to {:.12} failed half-way: {error}",
                    record.commit_id
                ));
                return Err(error);
            }
        }
        core.gate.clear_poison();
        state.generation += 1;
        state.restored_from = Some(record.commit_id);
        for heap in core.heaps.lock().values() {
            heap.reopen().map_err(|source| OpenError::Heap {
                segment: HEAP.to_owned(),
                source,
            })?;
        }
        Ok(record.commit_id)
    }

    /// Makes a new image that starts at the newest checkpoint of this one.
    ///
    /// - **Cost**: one commit; blocks are shared.
    /// - **Durable**: on `Ok`, yes.
    /// - **Errors**: [`OpenError::Exists`] if there is an image of that name, [`OpenError::NothingSaved`] before the first
    ///   checkpoint.
    pub fn branch(&self, name: &str) -> Result<CommitId, OpenError> {
        self.core.check_process()?;
        let core = &self.core;
        let name: ImageName = name.parse()?;
        core.gate.check_here(Closing::Writers)?;
        let mut slot = core.state.lock();
        let state = slot.as_mut().ok_or(CheckpointError::Closed)?;
        // The new image must not need a pack that only this session can finish.
        state.seal()?;
        let Some(head) = state.head.clone() else {
            return Err(OpenError::NothingSaved {
                image: core.image.to_string(),
            });
        };
        let mut lease = core.home.acquire(&name, core.holder.clone())?;
        if lease.head().is_some() {
            return Err(OpenError::Exists {
                image: name.to_string(),
            });
        }
        let commit = Commit {
            parents: vec![head.commit_id],
            time: Timestamp::from((core.world.now)()),
            host: core.holder.host.clone(),
            program: core.holder.program.clone(),
            generation: head.commit.generation + 1,
            attributes: [(
                "branched-from".to_owned(),
                core.image.as_str().as_bytes().to_vec(),
            )]
            .into(),
            ..head.commit
        };
        Ok(lease
            .publish(&commit, &state.orphans.encode())
            .map_err(CheckpointError::from)?)
    }

    /// The image's checkpoints, newest first.
    ///
    /// - **Errors**: [`GateError::HeldHere`] inside a guard: it waits for a checkpoint that runs.
    pub fn log(&self) -> Result<Vec<Record>, OpenError> {
        self.core.check_process()?;
        self.core.gate.check_here(Closing::Writers)?;
        let slot = self.core.state.lock();
        let state = slot.as_ref().ok_or(CheckpointError::Closed)?;
        Ok(state.lease.log().collect::<Result<_, _>>()?)
    }
}

/// Who this process is, for those who find the image held.
fn this_process(world: &World) -> Holder {
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(|path| path.file_name());
    Holder {
        pid: std::process::id(),
        host: segvm_os::host_name(),
        program: program.map_or_else(
            || "unknown".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        ),
        since: Timestamp::from((world.now)()),
    }
}

/// A number for a new heap's hash tables: another one for each heap, good enough against accidents.
fn seed(world: &World) -> u64 {
    let time = (world.now)()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), time)
}

fn check_machine(world: &World, image: &ImageName, head: &Record) -> Result<(), OpenError> {
    let made = (
        u32::from(head.commit.page_size_log2),
        u32::from(head.commit.pointer_width),
    );
    let here = (world.kernel.page_size().log2(), usize::BITS / 8);
    if made == here {
        return Ok(());
    }
    let say = |(page, pointer): (u32, u32)| {
        format!(
            "pages of {} KiB and pointers of {pointer} bytes",
            (1_u64 << page.min(40)) >> 10
        )
    };
    Err(OpenError::OtherMachine {
        image: image.to_string(),
        made: say(made),
        here: say(here),
    })
}
