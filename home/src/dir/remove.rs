//! Removing an image. Its blocks stay until a collection finds that nothing needs them.

use std::{
    io,
    path::{Path, PathBuf},
};

use segvm_blockcache::disk::Disk;

use super::{
    DirHome,
    grant::LeaseRecord,
    inside::{EnterError, WriterLock, change_error, known},
    tags,
};
use crate::{
    error::{HomeError, RemoveError},
    home::Holder,
    lease::Term,
    name::ImageName,
};

impl DirHome {
    /// Removes an image with all its commits and tags, unless somebody has it for writing.
    ///
    /// What stays is its lease, so that no token is granted twice should the name be used again, and who once had the
    /// image cannot write to another of the same name.
    ///
    /// - **Durable**: on `Ok`, yes. On `Err` the image is whole, or gone.
    pub fn remove(&self, image: &ImageName, holder: &Holder) -> Result<(), RemoveError> {
        let log = self.dir(image).join("log");
        match self.disk.exists(&log) {
            Ok(true) => {}
            Ok(false) => {
                return Err(RemoveError::NoImage {
                    image: image.clone(),
                });
            }
            Err(source) => return Err(HomeError::Io { path: log, source }.into()),
        }
        let inside = self.enter(image).map_err(|error| failed(image, error))?;
        let lock = inside.try_lock(&*self.disk);
        let _lock = match lock.map_err(|error| failed(image, error))? {
            WriterLock::Ours(lock) => lock,
            WriterLock::Theirs(pid) => {
                let Holder {
                    pid,
                    host,
                    program,
                    since,
                } = inside.holder(pid);
                return Err(RemoveError::Held {
                    image: image.clone(),
                    pid,
                    host,
                    program,
                    since: known(since),
                });
            }
        };
        // 1. Every token that was ever granted is fenced.
        let mut state = inside.free().at(holder.since);
        let _nobody = state.steal(holder, Term::WhileHeld);
        if let Some(grant) = state.newest() {
            let record = LeaseRecord {
                grant: grant.clone(),
                fenced: state.fenced(),
                lock: inside.lock(),
            };
            let written = inside.file.write(&record);
            written
                .and_then(|()| inside.file.sync())
                .map_err(HomeError::from)?;
        }
        // 2. Without its log it is no image.
        let dir = &inside.place.dir;
        let removed = dir.join(REMOVED);
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| HomeError::Io { path, source }
        };
        self.disk.rename(&log, &removed).map_err(io(&log))?;
        self.disk.sync_dir(dir).map_err(io(dir))?;
        // 3. The rest is out of sight, and the next image of this name clears what a crash leaves.
        let _left_for_later = clear(&*self.disk, dir);
        Ok(())
    }
}

impl DirHome {
    /// Syncs the directory of each image that somebody who was killed had removed, perhaps before that was durable.
    ///
    /// - **Cost**: a look at each directory; a sync for those that a killed process left.
    pub(super) fn settle_removals(&self) -> Result<(), HomeError> {
        let images = self.images_dir();
        let names = match self.disk.list(&images) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => {
                return Err(HomeError::Io {
                    path: images,
                    source,
                });
            }
        };
        for name in names {
            let Ok(name) = name.parse::<ImageName>() else {
                continue;
            };
            let dir = self.dir(&name);
            let removed = dir.join(REMOVED);
            match self.disk.exists(&removed) {
                Ok(false) => {}
                Ok(true) => {
                    let synced = self.disk.sync_dir(&dir);
                    synced.map_err(|source| HomeError::Io { path: dir, source })?;
                }
                Err(source) => {
                    return Err(HomeError::Io {
                        path: removed,
                        source,
                    });
                }
            }
        }
        Ok(())
    }
}

/// What a log is called from when its image is removed until it is deleted.
const REMOVED: &str = "removed";

/// Deletes what is left of a removed image.
///
/// - **Errors**: which file, and what the file system said.
pub(super) fn clear(disk: &dyn Disk, dir: &Path) -> Result<(), (PathBuf, io::Error)> {
    match tags::clear(disk, dir) {
        Ok(()) => {}
        Err(tags::TagFileError::Io { path, source }) => return Err((path, source)),
        // Nothing is read here.
        Err(_) => {}
    }
    let removed = dir.join(REMOVED);
    match disk.remove(&removed) {
        Ok(()) => disk
            .sync_dir(dir)
            .map_err(|source| (dir.to_owned(), source)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err((removed, source)),
    }
}

fn failed(image: &ImageName, error: EnterError) -> RemoveError {
    change_error(error, |pid| RemoveError::Busy {
        image: image.clone(),
        pid,
    })
}
