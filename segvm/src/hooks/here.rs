//! Which hooks this thread is in, of which sessions.

use std::{cell::RefCell, sync::Arc};

thread_local! {
    /// Innermost last: a hook of one session may checkpoint another one, whose hooks run inside it.
    static HERE: RefCell<Vec<(u64, Arc<str>)>> = const { RefCell::new(Vec::new()) };
}

/// This thread is in a hook until this is dropped.
pub(super) struct Inside(());

pub(super) fn enter(session: u64, hook: &Arc<str>) -> Inside {
    HERE.with_borrow_mut(|here| here.push((session, Arc::clone(hook))));
    Inside(())
}

impl Drop for Inside {
    fn drop(&mut self) {
        HERE.with_borrow_mut(|here| here.pop());
    }
}

/// The hook of that session that this thread is in.
pub(super) fn of(session: u64) -> Option<Arc<str>> {
    // A thread that is ending, whose list is gone, runs no hook.
    HERE.try_with(|here| {
        let here = here.borrow();
        let found = here.iter().find(|(id, _)| *id == session);
        found.map(|(_, hook)| Arc::clone(hook))
    })
    .unwrap_or_default()
}
