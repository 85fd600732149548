//! A session on doubles whose segment lies in as many pieces as it has pages.

use std::{path::Path, sync::Arc};

use segvm::{Segment, SegmentOptions, Session, SessionOptions, World};
use segvm_blockcache::{BlockSize, Store, disk::CrashDisk};
use segvm_os::ModelKernel;

pub(crate) const PAGE: usize = 4096;

/// Five windows: more pieces than are left as they are, at the end and beside the program.
pub(crate) const PAGES: usize = 5 * 512;

pub(crate) struct Life {
    pub(crate) kernel: Arc<ModelKernel>,
    pub(crate) disk: CrashDisk,
    pub(crate) session: Session,
    pub(crate) segment: Segment,
    /// What each page is filled with.
    pub(crate) model: Vec<u8>,
}

pub(crate) fn open(kernel: &Arc<ModelKernel>, disk: &CrashDisk) -> (Session, Segment) {
    open_image("image", kernel, disk)
}

fn open_image(image: &str, kernel: &Arc<ModelKernel>, disk: &CrashDisk) -> (Session, Segment) {
    let world = World::with(Arc::<ModelKernel>::clone(kernel), Arc::new(disk.clone()));
    let options = SessionOptions::new()
        .store(Path::new("/store"))
        .world(world);
    let session = options
        .open(image)
        .unwrap_or_else(|error| panic!("the image does not open: {error}"));
    let small = SegmentOptions::new()
        .block_size(BlockSize::MIN)
        .reserve(PAGES * PAGE);
    let segment = session
        .segment_with("memory", PAGES * PAGE, &small)
        .unwrap();
    (session, segment)
}

impl Life {
    /// Every other page is durable; those between are written and not saved.
    pub(crate) fn begin() -> Self {
        let (kernel, disk) = (Arc::new(ModelKernel::new()), CrashDisk::new(1));
        let (session, segment) = open(&kernel, &disk);
        let mut life = Self {
            kernel,
            disk,
            session,
            segment,
            model: vec![0; PAGES],
        };
        (0..PAGES).step_by(2).for_each(|page| life.put(page, 0));
        life.session.checkpoint().unwrap();
        (1..PAGES).step_by(2).for_each(|page| life.put(page, 0));
        life
    }

    /// Fills a page with something that no other page has in the same `epoch`, nearly.
    pub(crate) fn put(&mut self, page: usize, epoch: usize) {
        let byte = ((page + epoch * 100) % 251) as u8 + 1;
        self.segment
            .write(page * PAGE, &filled(page, byte))
            .unwrap();
        self.model[page] = byte;
    }
}

/// Like no other page's bytes, so that none is stored as a duplicate.
fn filled(page: usize, byte: u8) -> Vec<u8> {
    let mut bytes = vec![byte; PAGE];
    bytes[..8].copy_from_slice(&(page as u64).to_le_bytes());
    bytes
}

/// The first page of the segment that is not as the model says.
pub(crate) fn differs(segment: &Segment, model: &[u8]) -> Option<usize> {
    let mut bytes = vec![0; PAGES * PAGE];
    segment.read(0, &mut bytes).unwrap();
    let pages = bytes.chunks(PAGE).enumerate();
    pages
        .filter(|(page, found)| *found != filled(*page, model[*page]))
        .map(|(page, _)| page)
        .next()
}

/// Saves everything after something failed, by a checkpoint or a suspend, and answers the first page that is not as the model
/// says in the next process. A session whose log could not be synced has a branch for that, as its error says.
pub(crate) fn differs_when_saved(
    when: &str,
    how: Ending,
    session: Session,
    disk: &CrashDisk,
    model: &[u8],
) -> Option<usize> {
    let failed = match how {
        Ending::Suspend => match session.suspend() {
            Ok(_) => None,
            Err(error) => Some((error.reason.to_string(), error.into_session())),
        },
        Ending::Checkpoint => match session.checkpoint() {
            Ok(_) => {
                drop(session);
                None
            }
            Err(error) => Some((error.to_string(), session)),
        },
    };
    let image = match failed {
        None => "image",
        Some((error, session)) => {
            assert!(
                error.contains("branch_here"),
                "{when}: the next try: {error}"
            );
            let saved = session.branch_here("rescued");
            saved.unwrap_or_else(|second| panic!("{when}: {error}, and then {second}"));
            drop(session);
            "rescued"
        }
    };
    let (_session, segment) = open_image(image, &Arc::new(ModelKernel::new()), disk);
    differs(&segment, model)
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    Checkpoint,
    Suspend,
}

/// Opens what the disk holds in a new process, and answers the first page that is not as the model says.
pub(crate) fn differs_when_opened(disk: &CrashDisk, model: &[u8]) -> Option<usize> {
    let (_session, segment) = open(&Arc::new(ModelKernel::new()), disk);
    differs(&segment, model)
}

/// Tells whether the extent map that the last session saved, if it did, can be mapped as it says: one that cannot costs the next
/// open a look-up of every block.
pub(crate) fn map_is_of_use(disk: &CrashDisk) -> bool {
    let (session, _segment) = open(&Arc::new(ModelKernel::new()), disk);
    let tree = session.log().unwrap()[0].commit.segments[0].tree;
    drop((session, _segment));
    let store = Store::open(Arc::new(disk.clone()), "/store".into()).unwrap();
    let map = store.load_extents(tree);
    map.is_none_or(|map| store.has_all_of(&map))
}

/// How many calls on memory it takes to open the image: about one for each piece.
pub(crate) fn calls_to_open(disk: &CrashDisk) -> u64 {
    let kernel = Arc::new(ModelKernel::new());
    let (_session, _segment) = open(&kernel, disk);
    kernel.calls()
}
