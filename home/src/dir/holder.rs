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

/// The file's length, always: so that writing it changes bytes and nothing else. Two texts of 255 bytes and the rest.
const LEN: usize = 1024;

pub(super) fn write(disk: &dyn Disk, dir: &Path, holder: &Holder) -> io::Result<()> {
    let since = holder.since;
    let text = format!(
        "pid {}\nhost {}\nprogram {}\nsince {} {}\n",
        holder.pid,
        line(&holder.host),
        line(&holder.program),
        since.secs(),
        since.nanos()
    );
    let checked = format!("{text}check {:08x}\n", crc32c::crc32c(text.as_bytes()));
    // In place. Rejected: a new file and a rename, which made ext4 write the new file out at once: 4 ms in a resume.
    let file = disk.open(&dir.join("holder"), Open::Create)?;
    file.write_at(0, format!("{checked:<LEN$}").as_bytes())
}

/// What fits in a line: at most 255 bytes, nothing that ends a line.
fn line(text: &str) -> String {
    let cut = text
        .get(..text.floor_char_boundary(255))
        .unwrap_or_default();
    cut.replace(|c: char| c.is_ascii_control(), " ")
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
    let mut bytes = vec![0; LEN];
    file.read_at(0, &mut bytes).ok()?;
    let all = String::from_utf8(bytes).ok()?;
    let (text, check) = all.split_at(all.rfind("check ")?);
    let check = check.trim_end().strip_prefix("check ")?;
    if check != format!("{:08x}", crc32c::crc32c(text.as_bytes())) {
        return None;
    }
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

#[cfg(test)]
mod tests {
    use segvm_blockcache::disk::MemDisk;

    use super::*;

    #[test]
    fn a_holder_comes_back_and_a_torn_one_is_ignored() {
        let (disk, dir) = (MemDisk::new(), Path::new("/d"));
        disk.create_dir_all(dir).unwrap();
        assert_eq!(read(&disk, dir), None);
        let mut holder = Holder {
            pid: 4711,
            host: "a host\nwith a line".into(),
            program: "é".repeat(200),
            since: Timestamp::new(-5, 7).unwrap(),
        };
        write(&disk, dir, &holder).unwrap();
        let found = read(&disk, dir).unwrap();
        assert_eq!(found.host, "a host with a line");
        assert_eq!(found.program, "é".repeat(127));
        holder.host = "b".into();
        holder.program = "check 0".into();
        write(&disk, dir, &holder).unwrap();
        assert_eq!(read(&disk, dir).as_ref(), Some(&holder));
        let file = disk.open(&dir.join("holder"), Open::Write).unwrap();
        file.write_at(4, b"5").unwrap();
        assert_eq!(read(&disk, dir), None);
        file.set_len(100).unwrap();
        assert_eq!(read(&disk, dir), None);
    }
}
