//! Tags of an image: a file each, which holds the commit itself, so that a tag outlives the log that it was found in.
//!
//! ```text
//!   <root>/images/<name>/tags/<tag>       one tag
//!   <root>/images/<name>/tags/.new        one that is being written
//!
//!   0   magic "SEGVMTAG"         16  sequence number u64    44  zero u32
//!   8   version u16 = 1          24  token u64              48  mark
//!   10  length of the mark u16   32  when: seconds i64      ..  commit
//!   12  length of the commit u32 40  nanoseconds u32        ..  CRC-32C of all before
//! ```

use std::{
    io,
    path::{Path, PathBuf},
};

use segvm_blockcache::{
    CommitId,
    disk::{Disk, Open},
};

use super::{
    DirHome,
    frame::MARK_MAX,
    inside::{EnterError, change_error},
    names,
};
use crate::{
    commit::{COMMIT_MAX, Commit},
    error::{HomeError, TagError},
    home::{Home, Record, Tag},
    lease::Token,
    name::{ImageName, Ref},
    time::Timestamp,
};

const MAGIC: [u8; 8] = *b"SEGVMTAG";
const VERSION: u16 = 1;
const HEADER: usize = 48;
const CRC: usize = 4;
const LEN_MAX: usize = HEADER + MARK_MAX + COMMIT_MAX + CRC;

/// Why the file of a tag could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TagFileError {
    /// The file system said no.
    #[error("cannot read or write {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Its bytes are not those of a tag.
    #[error("{} is damaged: set the tag again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A later version of segvm wrote it.
    #[error("{} has format version {got}; this program reads version 1: use a newer segvm", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        got: u16,
    },
}

impl DirHome {
    /// All tags of an image, sorted by name.
    pub fn tags(&self, image: &ImageName) -> Result<Vec<Tag>, HomeError> {
        if !self.has_log(image)? {
            return Ok(Vec::new());
        }
        let dir = self.tags_dir(image);
        let mut tags = Vec::new();
        for name in list(&*self.disk, &dir)? {
            // What is being written has a dot in front, which no tag has.
            if let Ok(name) = name.parse()
                && let Some(tag) = read(&*self.disk, &dir, &name)?
            {
                tags.push(tag);
            }
        }
        tags.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tags)
    }

    /// Finds a tag by name.
    pub fn tagged(&self, image: &ImageName, tag: &ImageName) -> Result<Option<Tag>, HomeError> {
        if !self.has_log(image)? {
            return Ok(None);
        }
        Ok(read(&*self.disk, &self.tags_dir(image), tag)?)
    }

    /// Gives the commit that `at` means a name: see [`Home::tag`].
    ///
    /// - **Durable**: on `Ok`, yes. On `Err` the tag may be there or not.
    pub fn tag(
        &self,
        image: &ImageName,
        tag: &ImageName,
        at: &Ref,
        now: Timestamp,
    ) -> Result<Tag, TagError> {
        if tag.as_str().parse() != Ok(Ref::Tag(tag.clone())) {
            return Err(TagError::Shadowed { tag: tag.clone() });
        }
        if !self.has_log(image)? {
            return Err(TagError::NoImage {
                image: image.clone(),
            });
        }
        let inside = self.enter(image).map_err(|error| failed(image, error))?;
        let record = self.resolve(image, at, now)?;
        let dir = self.tags_dir(image);
        if let Some(there) = read(&*self.disk, &dir, tag).map_err(HomeError::from)? {
            if there.record.commit_id == record.commit_id {
                return Ok(there);
            }
            return Err(TagError::Exists {
                image: image.clone(),
                tag: tag.clone(),
                commit: there.record.commit_id,
            });
        }
        // The newest record may have been seen and not be durable, and a tag is not to outlive the line that it points into.
        if let Some(log) = &inside.log {
            let path = &log.path;
            let synced = log.file.sync();
            synced.map_err(|source| HomeError::Io {
                path: path.clone(),
                source,
            })?;
        }
        let tag = Tag {
            name: tag.clone(),
            at: now,
            record,
        };
        write(&*self.disk, &dir, &tag).map_err(HomeError::from)?;
        // The name of the directory itself, should it be new.
        let synced = names::sync(&*self.disk, &inside.place);
        synced.map_err(|(path, source)| HomeError::from(TagFileError::Io { path, source }))?;
        Ok(tag)
    }

    /// Takes a name away from its commit, which stays.
    ///
    /// - **Durable**: on `Ok`, yes. On `Err` the tag may be there or not.
    pub fn untag(&self, image: &ImageName, tag: &ImageName) -> Result<(), TagError> {
        let not_found = || TagError::NotFound {
            image: image.clone(),
            tag: tag.clone(),
        };
        if !self.has_log(image)? {
            return Err(not_found());
        }
        let _inside = self.enter(image).map_err(|error| failed(image, error))?;
        let dir = self.tags_dir(image);
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| HomeError::from(TagFileError::Io { path, source })
        };
        let path = dir.join(tag.as_str());
        match self.disk.remove(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_found()),
            Err(source) => return Err(io(&path)(source).into()),
        }
        Ok(self.disk.sync_dir(&dir).map_err(io(&dir))?)
    }

    fn tags_dir(&self, image: &ImageName) -> PathBuf {
        self.dir(image).join("tags")
    }

    fn has_log(&self, image: &ImageName) -> Result<bool, HomeError> {
        let path = self.dir(image).join("log");
        match self.disk.exists(&path) {
            Ok(there) => Ok(there),
            Err(source) => Err(HomeError::Io { path, source }),
        }
    }
}

fn failed(image: &ImageName, error: EnterError) -> TagError {
    change_error(error, |pid| TagError::Busy {
        image: image.clone(),
        pid,
    })
}

/// Removes all tags in an image's directory.
pub(super) fn clear(disk: &dyn Disk, image_dir: &Path) -> Result<(), TagFileError> {
    let dir = image_dir.join("tags");
    let mut removed = false;
    for name in list(disk, &dir)? {
        let path = dir.join(name);
        match disk.remove(&path) {
            Ok(()) => removed = true,
            Err(source) => return Err(TagFileError::Io { path, source }),
        }
    }
    match removed.then(|| disk.sync_dir(&dir)) {
        None | Some(Ok(())) => Ok(()),
        Some(Err(source)) => Err(TagFileError::Io { path: dir, source }),
    }
}

fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, TagFileError> {
    match disk.list(dir) {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(TagFileError::Io {
            path: dir.to_owned(),
            source,
        }),
    }
}

/// Makes a tag durable, but for the name of its directory:
///
/// 1. its bytes are synced under another name;
/// 2. it gets its own, in one step;
/// 3. the directory is synced.
fn write(disk: &dyn Disk, dir: &Path, tag: &Tag) -> Result<(), TagFileError> {
    let (new, path) = (dir.join(".new"), dir.join(tag.name.as_str()));
    let bytes = encode(tag);
    let put = || {
        disk.create_dir_all(dir)?;
        let file = disk.open(&new, Open::Create)?;
        file.set_len(0)?;
        file.write_at(0, &bytes)?;
        file.sync()?;
        disk.rename(&new, &path)?;
        disk.sync_dir(dir)
    };
    match put() {
        Ok(()) => Ok(()),
        Err(source) => Err(TagFileError::Io { path, source }),
    }
}

fn read(disk: &dyn Disk, dir: &Path, name: &ImageName) -> Result<Option<Tag>, TagFileError> {
    let path = dir.join(name.as_str());
    let found = disk.open(&path, Open::Read).and_then(|file| {
        let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(LEN_MAX)];
        file.read_at(0, &mut bytes)?;
        // One that is longer than any tag is none.
        Ok((len <= LEN_MAX).then_some(bytes))
    });
    let bytes = match found {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(TagFileError::Damaged { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(TagFileError::Io { path, source }),
    };
    match decode(&bytes, name) {
        Ok(tag) => Ok(Some(tag)),
        Err(Some(got)) => Err(TagFileError::Version { path, got }),
        Err(None) => Err(TagFileError::Damaged { path }),
    }
}

fn encode(tag: &Tag) -> Vec<u8> {
    let Record {
        seq,
        commit,
        mark,
        token,
        ..
    } = &tag.record;
    // It was read as a commit, so it can be written as one.
    let commit = commit.encode().unwrap_or_default();
    let mut out = Vec::with_capacity(HEADER + mark.len() + commit.len() + CRC);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&u16::try_from(mark.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(
        &u32::try_from(commit.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&token.number().to_le_bytes());
    out.extend_from_slice(&tag.at.secs().to_le_bytes());
    out.extend_from_slice(&tag.at.nanos().to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(mark);
    out.extend_from_slice(&commit);
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    out
}

/// - **Errors**: the version, where that is all that is wrong.
pub(super) fn decode(bytes: &[u8], name: &ImageName) -> Result<Tag, Option<u16>> {
    let (covered, crc) = bytes.split_last_chunk::<CRC>().ok_or(None)?;
    if !bytes.starts_with(&MAGIC) || crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
        return Err(None);
    }
    match field(covered, 8).map(u16::from_le_bytes) {
        Some(VERSION) => {}
        other => return Err(other),
    }
    whole(covered, name).ok_or(None)
}

fn whole(bytes: &[u8], name: &ImageName) -> Option<Tag> {
    let number = |at| field(bytes, at).map(u64::from_le_bytes);
    let mark = usize::from(u16::from_le_bytes(field(bytes, 10)?));
    let commit = usize::try_from(u32::from_le_bytes(field(bytes, 12)?)).ok()?;
    let (mark, commit_bytes) = bytes.get(HEADER..)?.split_at_checked(mark)?;
    let sound = commit_bytes.len() == commit
        && mark.len() <= MARK_MAX
        && commit <= COMMIT_MAX
        && field(bytes, 44) == Some([0; 4]);
    let at = Timestamp::new(
        i64::from_le_bytes(field(bytes, 32)?),
        u32::from_le_bytes(field(bytes, 40)?),
    )?;
    let commit = Commit::decode(commit_bytes).ok()?;
    sound.then(|| Tag {
        name: name.clone(),
        at,
        record: Record {
            seq: number(16).unwrap_or_default(),
            commit_id: CommitId::of(commit_bytes),
            commit,
            mark: mark.to_vec(),
            token: Token::new(number(24).unwrap_or_default()),
        },
    })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
