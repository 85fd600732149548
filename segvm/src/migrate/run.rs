use std::sync::Arc;

use segvm_home::{ImageName, Ref, Timestamp};

use super::{Migration, MigrationError, step::Step};
use crate::{
    checkpoint::{self, CheckpointError, Rounds, Style},
    gate::Kind,
    root::{HeapShared, Wanted},
    session::{OpenError, Session},
};

/// Brings the roots of an image that was just attached to the types that the program has now. Nobody else knows the session yet.
///
/// Durability, in order:
///
/// 1. every step of every root, in memory;
/// 2. the old commit is tagged: a crash after this leaves one tag more, which the next try finds;
/// 3. one checkpoint (`Core::publish`): a crash leaves the old commit or the new one.
///
/// A reader has no lease: it sees the new types, and nothing is committed.
pub(crate) fn run(session: &Session, migrations: &[Migration]) -> Result<(), OpenError> {
    let mut roots: Vec<(&str, &str)> = Vec::new();
    for migration in migrations {
        let root = (&*migration.heap, &*migration.root);
        if !roots.contains(&root) {
            roots.push(root);
        }
    }
    let mut changed = false;
    for (heap, root) in roots {
        // A heap that is not there has no root, and is not made for that.
        if !session.core().segments.lock().contains_key(heap) {
            continue;
        }
        let shared = session.heap(heap)?;
        let steps = migrations
            .iter()
            .filter(|migration| (&*migration.heap, &*migration.root) == (heap, root))
            .map(|migration| &*migration.step);
        changed |= shared.migrate(root, steps.collect())?;
    }
    if changed { commit(session) } else { Ok(()) }
}

fn commit(session: &Session) -> Result<(), OpenError> {
    let core = session.core();
    let mut slot = core.state.lock();
    let state = slot.as_mut().ok_or(CheckpointError::Closed)?;
    let is_writer = state.check_writer(core).is_ok();
    let Some(head) = state.head.as_ref().filter(|_| is_writer) else {
        return Ok(());
    };
    let tag: ImageName = format!("before-migration-{:.12}", head.commit_id).parse()?;
    let at = Ref::Prefix(head.commit_id.to_string());
    let now = Timestamp::from((core.world.now)());
    core.home.tag(&core.image(), &tag, &at, now)?;
    checkpoint::run(core, state, Style::Checkpoint(Rounds::Auto), &|_| ())?;
    Ok(())
}

/// A step, and whether it was taken.
struct Known<'s> {
    step: &'s dyn Step,
    from: Wanted,
    to: Wanted,
    taken: bool,
}

impl HeapShared {
    /// Takes the steps from what a root is to the last that leads on; answers whether there was any.
    fn migrate(self: &Arc<Self>, root: &str, steps: Vec<&dyn Step>) -> Result<bool, OpenError> {
        let mut known = Vec::with_capacity(steps.len());
        for step in steps {
            let types = step.types().map_err(|source| MigrationError::Schema {
                root: root.into(),
                source,
            });
            let (from, to) = types?;
            let taken = false;
            known.push(Known {
                step,
                from,
                to,
                taken,
            });
        }
        let _pass = self.gate().enter(Kind::Write, self.gate().label(root))?;
        let mut changed = false;
        loop {
            let Some(entry) = self.heap().root(root) else {
                return Ok(changed);
            };
            // Each once: steps that lead in a circle end where they began.
            let next = known.iter_mut().find(|known| {
                let fits = self.is_or_was(root, &entry, &known.from);
                fits && !known.taken && !self.is_or_was(root, &entry, &known.to)
            });
            let Some(next) = next else {
                let is_last = known
                    .iter()
                    .any(|known| self.is_or_was(root, &entry, &known.to));
                return match known.pop() {
                    Some(last) if !is_last => {
                        let mismatch = self.mismatch(root, &entry, last.to.schema);
                        Err(MigrationError::NoStep {
                            root: root.into(),
                            mismatch: Box::new(mismatch),
                        }
                        .into())
                    }
                    _ => Ok(changed),
                };
            };
            next.taken = true;
            self.take(root, next)?;
            changed = true;
        }
    }

    fn take(&self, root: &str, next: &Known<'_>) -> Result<(), MigrationError> {
        let heap = self.heap();
        let in_heap = |source| MigrationError::Heap {
            root: root.into(),
            source,
        };
        let to = next.to.as_type();
        let Some(old) = heap.root(root) else {
            return Ok(());
        };
        let new = heap.allocate_zeroed(to.layout).map_err(in_heap)?;
        // SAFETY: the directory says that `old` holds a value of the step's first type (compared by the caller), and the caller's
        // pass keeps it there; nobody else knows the session, let alone the block that was just taken and zeroed.
        unsafe { next.step.fill(root, old.place, new, heap) }?;
        // SAFETY: a value of the new type lies in a block taken for it, and nobody reaches the root.
        let old = unsafe { heap.replace_root(root, to, new) }.map_err(in_heap)?;
        // SAFETY: it was a root of the first type until just now, and nobody reaches it.
        unsafe { next.step.free(old, heap) };
        Ok(())
    }
}
