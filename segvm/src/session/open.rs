//! Opening an image: its lease, its packs, its segments.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use parking_lot::Mutex;
use segvm_blockcache::{Marks, PackMark, Store, StoreError, spans};
use segvm_home::{
    DirHome, Holder, ImageName, ImageRef, ParseRefError, Record, Ref, Timestamp, WriterLease,
};

use super::{
    Access, Opening, Role, Session,
    cause::{self, Resumed},
    core::{Core, State},
    error::OpenError,
    plan, reader, resume,
    verify::{self, Verify},
};
use crate::{
    checkpoint::Staging,
    gate::Gate,
    hooks::{self, Hooks},
    migrate, region,
    world::World,
};

impl Session {
    pub(crate) fn open_in(
        world: World,
        directory: PathBuf,
        image: &str,
        opening: Opening,
    ) -> Result<Self, OpenError> {
        let (image, at) = parse(image)?;
        let begun = Instant::now();
        let span = spans::span!(
            INFO,
            "open",
            %image,
            access = ?opening.access,
            sequence = spans::Empty,
            generation = spans::Empty,
            segments = spans::Empty,
            bytes = spans::Empty,
            took_us = spans::Empty,
        );
        if let (Some(at), Access::Write | Access::Steal) = (&at, opening.access) {
            return Err(OpenError::NeedsReader {
                image: image.to_string(),
                at: at.clone(),
            });
        }
        let store = Store::open(Arc::clone(&world.disk), directory.clone())?;
        store.on_bad_copy(|bad| eprintln!("segvm: {bad}"));
        let home = DirHome::open(Arc::clone(&world.disk), directory);
        let holder = this_process(&world);
        let now = Timestamp::from((world.now)());
        let lease = match opening.access {
            Access::Write => Some(home.acquire(&image, holder.clone())?),
            Access::Steal => {
                // Not from somebody who would lose it to nobody.
                if let Some(head) = home.image(&image)?.and_then(|state| state.head) {
                    check(&world, &image, &head, &opening, &holder)?;
                }
                Some(home.steal(&image, holder.clone())?)
            }
            Access::Read => None,
        };
        let head = match &lease {
            Some(lease) => lease.head().cloned(),
            None => Some(reader::find(&home, &image, at.as_ref(), now)?),
        };
        let mut unsealed = Marks::default();
        if let Some(head) = &head {
            check(&world, &image, head, &opening, &holder)?;
            match &lease {
                Some(lease) => take_over(&store, lease, head, &mut unsealed)?,
                None => reader::read_along(&store, head)?,
            }
        }
        // Who was stolen from may live and have the same memory.
        let copied = lease
            .as_ref()
            .is_none_or(|lease| lease.taken_from().is_some() || !lease.fenced_alive().is_empty());
        let resumed = head
            .as_ref()
            .map(|head| Resumed::from(head, cause::cause_of(head, copied), 0, now));
        let core = Arc::new(Core {
            store,
            home,
            image: Mutex::new(image),
            verify: opening.verify,
            gate: Gate::new(),
            gate_timeout: opening.gate_timeout,
            hooks: Hooks::new(opening.hooks),
            holder,
            owner: std::process::id(),
            newest: Mutex::new(head.as_ref().map(|head| head.commit_id)),
            resumed: Mutex::new(resumed),
            state: Mutex::new(None),
            arrivals: Mutex::default(),
            segments: Mutex::default(),
            heaps: Mutex::default(),
            maps: Arc::default(),
            secrets: Mutex::default(),
            world,
        });
        let migrations = opening.migrations;
        let session = Self {
            core,
            background: Mutex::new(None),
            role: Role::Owner,
        };
        let records = head
            .as_ref()
            .map(|head| head.commit.segments.clone())
            .unwrap_or_default();
        let sequence = head.as_ref().map_or(0, |head| head.seq + 1);
        let mark = head.as_ref().map(|head| head.mark.clone());
        let generation = resumed.map_or(1, |resumed| resumed.generation);
        // The state comes first: if a segment fails to come back, dropping the session gives back those before.
        *session.core.state.lock() = Some(State {
            lease,
            head,
            segments: Vec::new(),
            writer: None,
            orphans: unsealed,
            staging: Staging::default(),
            extents_owed: 0,
            extents_saved: Vec::new(),
            generation,
            instant: SystemTime::UNIX_EPOCH,
            broken: None,
            restored_from: None,
            unleased: false,
            branched_from: None,
            orphaned: None,
        });
        let all: Vec<_> = records.iter().collect();
        let planning = spans::span!(DEBUG, "plan");
        let plans = plan::plan(&session.core.store, &all)
            .map_err(|error| error.with_lost(lost_with(&session.core.store, mark.as_deref())))?;
        drop(planning);
        if opening.verify == Verify::All {
            let _verifying = spans::span!(DEBUG, "verify");
            verify::verify(&session.core.store, &all, &plans)?;
        }
        for (record, plan) in records.iter().zip(plans) {
            let _attaching =
                spans::span!(DEBUG, "attach", segment = record.name, bytes = record.len);
            let owner = session.owner_of(&record.name);
            let tracker = session.tracker()?;
            let core = &session.core;
            let segment = resume::attach(&core.world, &core.store, &owner, record, plan, tracker)?;
            session.enlist(segment, true);
        }
        let shared = session.core.segments.lock();
        let regions = shared.values().flat_map(region::unfilled).collect();
        drop(shared);
        region::fill_all(&session.core, regions)?;
        migrate::run(&session, &migrations)?;
        if let Some(resumed) = resumed {
            hooks::resume(&session.core, resumed)?;
        }
        spans::record!(
            span,
            sequence = sequence,
            generation = generation,
            segments = records.len(),
            bytes = records.iter().map(|record| record.len).sum::<u64>(),
            took_us = spans::micros(begun.elapsed()),
        );
        Ok(session)
    }
}

/// `name` or `name@reference`.
fn parse(text: &str) -> Result<(ImageName, Option<Ref>), OpenError> {
    match text.parse() {
        Ok(ImageRef {
            home: None,
            name,
            at,
        }) => Ok((name, at)),
        Ok(ImageRef {
            home: Some(home), ..
        }) => Err(OpenError::OtherHome { home }),
        Err(ParseRefError::Name(error)) => Err(error.into()),
        Err(error) => Err(error.into()),
    }
}

/// Sees to the packs that the newest record marks: seals those whose writers are gone. Where one was stolen from and lives, it
/// may be writing behind its mark: that pack is read along, and stays marked until somebody finds it alone.
fn take_over(
    store: &Store,
    lease: &WriterLease,
    head: &Record,
    unsealed: &mut Marks,
) -> Result<(), OpenError> {
    for &mark in Marks::decode(&head.mark)?.list() {
        let Some(&pid) = lease.fenced_alive().first() else {
            adopt(store, mark)?;
            continue;
        };
        if !store.has_sealed(mark.pack) {
            store.read_along(mark)?;
        }
        if !store.packs_along().contains(&mark.pack) {
            adopt(store, mark)?;
        } else if !unsealed.set(mark) {
            return Err(OpenError::StolenFrom {
                image: lease.image().to_string(),
                pid,
            });
        }
    }
    Ok(())
}

/// Seals what a dead writer left. A pack that is missing is no error here: a collection that saw a later record, which a power
/// cut then took, wrote again what is needed of it; if not, the tree that needs it says so.
fn adopt(store: &Store, mark: PackMark) -> Result<(), StoreError> {
    match store.adopt(mark) {
        Err(StoreError::Missing { .. }) => Ok(()),
        other => other,
    }
}

/// A pack that the newest record marks, and that is not there.
fn lost_with(store: &Store, mark: Option<&[u8]>) -> Option<PathBuf> {
    let marks = Marks::decode(mark?).ok()?;
    let packs = marks.list().iter().map(|mark| mark.pack);
    plan::missing(store, packs).map(|pack| store.pack_path(pack))
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

/// Whether this program on this machine may have what a commit holds.
fn check(
    world: &World,
    image: &ImageName,
    head: &Record,
    opening: &Opening,
    holder: &Holder,
) -> Result<(), OpenError> {
    check_machine(world, image, head)?;
    if !opening.any_program && head.commit.program != holder.program {
        return Err(OpenError::OtherProgram {
            image: image.to_string(),
            made: head.commit.program.clone(),
            here: holder.program.clone(),
        });
    }
    Ok(())
}

pub(super) fn check_machine(
    world: &World,
    image: &ImageName,
    head: &Record,
) -> Result<(), OpenError> {
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
