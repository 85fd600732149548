//! The store on this machine, and how an image in it is reached.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use segvm_blockcache::{
    Marks, PackMark, Store,
    disk::{Disk, RealDisk},
};
use segvm_home::{DirHome, Holder, Home as _, ImageName, ImageRef, Record, Ref, Timestamp};

use crate::failure::Failure;

/// What the home of a store on this machine is called.
pub(crate) const HOME: &str = "local";

/// The store of this command. Made by nobody but programs: looking for one never creates it.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) root: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) home: DirHome,
    /// The instant that this command works at.
    pub(crate) now: Timestamp,
}

impl Local {
    /// The store at `directory`, else where programs look for one; it need not be there.
    pub(crate) fn at(directory: Option<&Path>) -> Result<Self, Failure> {
        let root = match directory {
            Some(directory) => directory.to_owned(),
            None => segvm::default_store().ok_or(Failure::NoDirectory)?,
        };
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        Ok(Self {
            home: DirHome::open(Arc::clone(&disk), root.clone()),
            root,
            disk,
            now: SystemTime::now().into(),
        })
    }

    /// Tells whether there is a store.
    pub(crate) fn is_there(&self) -> Result<bool, Failure> {
        let path = self.root.join("format");
        self.disk
            .exists(&path)
            .map_err(|source| Failure::Read { path, source })
    }

    /// Passes where there is a store.
    pub(crate) fn must_be_there(&self) -> Result<(), Failure> {
        if self.is_there()? {
            return Ok(());
        }
        Err(Failure::NoStore(self.root.clone()))
    }

    /// Opens the packs. While the result lives, nothing that is named is collected.
    pub(crate) fn store(&self) -> Result<Arc<Store>, Failure> {
        self.must_be_there()?;
        let store = Store::open(Arc::clone(&self.disk), self.root.clone())?;
        store.on_bad_copy(|bad| eprintln!("segvm: {bad}"));
        Ok(store)
    }

    /// The newest record of an image that must be there.
    pub(crate) fn head(&self, image: &ImageName) -> Result<Record, Failure> {
        self.must_be_there()?;
        match self.home.image(image)? {
            Some(state) => state.head.ok_or_else(|| Failure::NoCommit(image.clone())),
            None => Err(Failure::NoImage {
                image: image.clone(),
                store: self.root.clone(),
            }),
        }
    }

    /// The record that a reference means.
    pub(crate) fn resolve(&self, at: &ImageRef) -> Result<Record, Failure> {
        let head = self.head(image_of(at)?)?;
        match &at.at {
            None => Ok(head),
            Some(reference) => Ok(self.home.resolve(&at.name, reference, self.now)?),
        }
    }

    /// Opens the store so that the commits of these records can be read, also where their programs still run.
    pub(crate) fn view(&self, records: &[(&ImageName, &Record)]) -> Result<Arc<Store>, Failure> {
        let store = self.store()?;
        for (image, record) in records {
            let head = self.head(image)?;
            for mark in marks_of(image, &head)?
                .into_iter()
                .chain(marks_of(image, record)?)
            {
                store.read_along(mark)?;
            }
        }
        Ok(store)
    }

    /// Who this command is, for those who find the image held.
    pub(crate) fn holder(&self) -> Holder {
        Holder {
            pid: std::process::id(),
            host: segvm_os::host_name(),
            program: "segvm".to_owned(),
            since: self.now,
        }
    }
}

/// The packs that a record relies on beside the sealed ones.
pub(crate) fn marks_of(image: &ImageName, record: &Record) -> Result<Vec<PackMark>, Failure> {
    match Marks::decode(&record.mark) {
        Ok(marks) => Ok(marks.list().to_vec()),
        Err(source) => Err(Failure::Marks {
            image: image.clone(),
            source,
        }),
    }
}

/// The image that is meant, which must be one of this store.
pub(crate) fn image_of(at: &ImageRef) -> Result<&ImageName, Failure> {
    match at.home.as_deref() {
        None | Some(HOME) => Ok(&at.name),
        Some(_) => Err(Failure::OtherHome(Box::new(at.clone()))),
    }
}

/// The reference that is meant: the newest commit where none is said.
pub(crate) fn ref_of(at: &ImageRef) -> Ref {
    at.at.clone().unwrap_or(Ref::Back(0))
}
