//! The commits that an image goes back to: its own, and beyond the point where it was branched off another.

use std::collections::BTreeSet;

use segvm_blockcache::CommitId;

use crate::{
    error::HomeError,
    home::{Home, Log, Record},
    name::ImageName,
    time::Timestamp,
};

/// The attribute of an image's first commit that names the image which it was branched off.
pub const BRANCHED_FROM: &str = "branched-from";

/// The commits of an image, newest first, through every branch point. An error ends it.
#[derive(Debug)]
pub struct History<'a, H: ?Sized> {
    home: &'a H,
    log: LogOf,
    /// The last record that was given: where it is the first of its image, it says what the image was branched off.
    last: Option<Record>,
    gone: Option<ImageName>,
}

/// A log that says which image's it is; debugging cannot look into it.
struct LogOf(Log);

impl std::fmt::Debug for LogOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Log")
    }
}

impl<'a, H: Home + ?Sized> History<'a, H> {
    /// The history of an image; nothing where there is no such image.
    pub fn of(home: &'a H, image: &ImageName) -> Result<Self, HomeError> {
        Ok(Self {
            home,
            log: LogOf(home.log(image)?),
            last: None,
            gone: None,
        })
    }

    /// Once it has ended: the image that it would go on in, and which is not there any more.
    #[must_use]
    pub fn gone(&self) -> Option<&ImageName> {
        self.gone.as_ref()
    }

    /// Goes on at the commit that the image was branched off.
    fn cross(&mut self) -> Option<Result<Record, HomeError>> {
        let (named, parent) = branched_from(&self.last.take()?)?;
        let (mut image, mut looked) = (named.clone(), BTreeSet::new());
        // What the other image did after the branch is not part of this one's history. It may have the commit from the image
        // that it was itself branched off. Names that were given again could lead in a circle.
        while looked.insert(image.clone()) {
            let log = match self.home.log(&image) {
                Ok(log) => log,
                Err(error) => return Some(Err(error)),
            };
            self.log = LogOf(log);
            let mut first = None;
            loop {
                match self.log.0.next() {
                    Some(Ok(record)) if record.commit_id == parent => {
                        self.last = Some(record.clone());
                        return Some(Ok(record));
                    }
                    Some(Ok(record)) => first = Some(record),
                    Some(Err(error)) => return Some(Err(self.end(error.into()))),
                    None => break,
                }
            }
            match first.as_ref().and_then(branched_from) {
                Some((before, _)) => image = before,
                None => break,
            }
        }
        self.gone = Some(named);
        None
    }

    fn end(&mut self, error: HomeError) -> HomeError {
        self.log = LogOf(Box::new(std::iter::empty()));
        self.last = None;
        error
    }
}

impl<H: Home + ?Sized> Iterator for History<'_, H> {
    type Item = Result<Record, HomeError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.log.0.next() {
            Some(Ok(record)) => {
                self.last = Some(record.clone());
                Some(Ok(record))
            }
            Some(Err(error)) => Some(Err(self.end(error.into()))),
            None => self.cross(),
        }
    }
}

/// What the first commit of an image says that it was branched off: image and commit.
fn branched_from(first: &Record) -> Option<(ImageName, CommitId)> {
    let name = first.commit.attributes.get(BRANCHED_FROM)?;
    let image = std::str::from_utf8(name).ok()?.parse().ok()?;
    Some((image, *first.commit.parents.first()?))
}

/// Who wrote commits of an image's history, and thus could have put anything into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The machine's name, as the commits have it.
    pub host: String,
    /// The program's name, as the commits have it.
    pub program: String,
    /// How many.
    pub commits: u64,
    /// The time of the earliest in the line.
    pub first: Timestamp,
    /// The time of the latest in the line.
    pub last: Timestamp,
}

/// Who could have put what into an image: everybody who wrote a commit of its history, the latest first.
///
/// What a commit says of its host and program is what its writer said: it helps an honest user find out, and proves nothing.
///
/// - **Cost**: reads the whole history.
pub fn authors<H: Home + ?Sized>(home: &H, image: &ImageName) -> Result<Vec<Author>, HomeError> {
    let mut authors: Vec<Author> = Vec::new();
    for record in History::of(home, image)? {
        let commit = record?.commit;
        let known = authors
            .iter_mut()
            .find(|author| author.host == commit.host && author.program == commit.program);
        match known {
            Some(author) => {
                author.commits += 1;
                author.first = commit.time;
            }
            None => authors.push(Author {
                host: commit.host,
                program: commit.program,
                commits: 1,
                first: commit.time,
                last: commit.time,
            }),
        }
    }
    Ok(authors)
}
