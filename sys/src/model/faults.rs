//! Calls that fail on demand.

use rustix::io::Errno;

/// The calls of [`Kernel`](crate::Kernel) and [`Watch`](crate::Watch), to be named when one shall fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the method of that name")]
#[non_exhaustive]
pub enum ModelCall {
    Reserve,
    Release,
    Commit,
    Fence,
    MapFile,
    Fill,
    PopulateRead,
    SetWritable,
    Discard,
    Seclude,
    OpenWatch,
    Scan,
    CopyRacing,
    CopyQuiet,
    Register,
    Unregister,
    Arm,
    Install,
}

/// One failure to come.
#[derive(Debug)]
struct Planned {
    /// `None`: any call counts.
    call: Option<ModelCall>,
    /// Calls that still succeed before it.
    after: u64,
    errno: Errno,
}

/// The failures to come, and how many calls there were.
#[derive(Debug, Default)]
pub(super) struct Faults {
    planned: Vec<Planned>,
    calls: u64,
}

impl Faults {
    pub(super) fn plan(&mut self, call: Option<ModelCall>, nth: u64, errno: i32) {
        assert!(nth > 0, "the first call is number 1");
        self.planned.push(Planned {
            call,
            after: nth - 1,
            errno: Errno::from_raw_os_error(errno),
        });
    }

    pub(super) fn clear(&mut self) {
        self.planned.clear();
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    /// Counts a call; answers the errno with which it fails, if it does.
    pub(super) fn count(&mut self, call: ModelCall) -> Option<Errno> {
        self.calls += 1;
        let mut failure = None;
        self.planned.retain_mut(|plan| {
            if plan.call.is_some_and(|wanted| wanted != call) {
                return true;
            }
            if plan.after > 0 {
                plan.after -= 1;
                return true;
            }
            failure = Some(plan.errno);
            false
        });
        failure
    }
}
