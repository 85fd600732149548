//! Who holds an image, in a file of its own: nobody may open the lock file but the one who locks it.
//!
//! It is a courtesy to those who are refused and decides nothing, so it is never synced, and a stale or torn one
//! is ignored.

use std::{io, path::Path};

use segvm_blockcache::disk::{Disk, Open};

use crate::{
    home::{AcquireError, Holder},
    name::ImageName,
    time::Timestamp,
};

/// More than any holder takes.
const LEN_MAX: u64 = 4096;

pub(super) fn write(disk: &dyn Disk, dir: &Path, holder: &Holder) -> io::Result<()> {
    let line = |text: &str| {
        text.replace(char::is_control, " ")
            .chars()
            .take(255)
            .collect()
    };
    let (host, program): (String, String) = (line(&holder.host), line(&holder.program));
    let since = holder.since;
    let text = format!(
        "pid {}\nhost {host}\nprogram {program}\nsince {} {}\n",
        holder.pid,
        since.secs(),
        since.nanos()
    );
    // A new file and a rename, so that who is refused meanwhile reads the old one or the new one.
    let (new, path) = (dir.join("holder.new"), dir.join("holder"));
    let file = disk.open(&new, Open::Create)?;
    file.set_len(0)?;
    file.write_at(0, text.as_bytes())?;
    disk.rename(&new, &path)
}

/// What to tell who was refused because `pid` holds the lock.
pub(super) fn refusal(disk: &dyn Disk, dir: &Path, image: &ImageName, pid: u32) -> AcquireError {
    // The holder may have locked and not yet written who it is: then the file tells of the one before. A pid of 0
    // is a process that cannot be seen from here, and the file is all there is.
    let known = read(disk, dir).filter(|holder| pid == 0 || holder.pid == pid);
    let unknown = || "an unknown program".to_owned();
    match known {
        Some(holder) => AcquireError::Held {
            image: image.clone(),
            pid: holder.pid,
            host: holder.host,
            program: holder.program,
            since: Some(holder.since),
        },
        None => AcquireError::Held {
            image: image.clone(),
            pid,
            host: "an unknown host".to_owned(),
            program: unknown(),
            since: None,
        },
    }
}

fn read(disk: &dyn Disk, dir: &Path) -> Option<Holder> {
    let file = disk.open(&dir.join("holder"), Open::Read).ok()?;
    let len = file.len().ok().filter(|len| *len <= LEN_MAX)?;
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    file.read_at(0, &mut bytes).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let pid = field("pid")?.parse().ok()?;
    let (host, program) = (field("host")?.to_owned(), field("program")?.to_owned());
    let (secs, nanos) = field("since")?.split_once(' ')?;
    let since = Timestamp::new(secs.parse().ok()?, nanos.parse().ok()?)?;
    Some(Holder {
        pid,
        host,
        program,
        since,
    })
}
