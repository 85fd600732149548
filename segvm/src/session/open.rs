//! Opening an image: its lease, its packs, its segments.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use parking_lot::Mutex;
use segvm_blockcache::{Marks, Store};
use segvm_home::{DirHome, Holder, ImageName, Record, Timestamp};

use super::{
    Opening, Role, Session,
    cause::{self, Resumed},
    core::{Core, State},
    error::OpenError,
    plan, resume,
};
use crate::{
    checkpoint::Staging,
    gate::Gate,
    hooks::{self, Hooks},
    region,
    world::World,
};

impl Session {
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
        let now = Timestamp::from((world.now)());
        // Who was stolen from may live and have the same memory.
        let copied = lease.taken_from().is_some() || !lease.fenced_alive().is_empty();
        let resumed = head
            .as_ref()
            .map(|head| Resumed::from(head, cause::cause_of(head, copied), 0, now));
        let core = Arc::new(Core {
            store,
            home,
            image,
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
        let session = Self {
            core,
            background: Mutex::new(None),
            role: Role::Owner,
        };
        let records = head
            .as_ref()
            .map(|head| head.commit.segments.clone())
            .unwrap_or_default();
        let generation = resumed.map_or(1, |resumed| resumed.generation);
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
        let shared = session.core.segments.lock();
        let regions = shared.values().flat_map(region::unfilled).collect();
        drop(shared);
        region::fill_all(&session.core, regions)?;
        if let Some(resumed) = resumed {
            hooks::resume(&session.core, resumed)?;
        }
        Ok(session)
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
