//! Regions and pages, and what happens when a page is read, written, armed and asked about.

use std::{collections::BTreeMap, ops::Bound};

use super::backing::Backing;
use crate::{
    kernel::Query,
    page::{PageRange, PageSize},
};

/// The state of a page, as a test may ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelPage {
    /// Nothing of this kernel lies there.
    Unmapped,
    /// Reserved or fenced: neither readable nor writable.
    Reserved,
    /// Committed, never touched.
    Hole,
    /// Committed and read, never written: the zero page.
    Zero,
    /// Shows a file; not looked at yet.
    FileAbsent,
    /// Shows a file; read, never written.
    File,
    /// Written: a copy that this process alone has.
    Private,
}

/// An access that a real program would die of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelFault {
    /// Nothing is mapped there, or it may not be accessed that way.
    #[error("SIGSEGV at {at:#x}")]
    Segv {
        /// The first byte that could not be accessed.
        at: usize,
    },
    /// The file that is mapped there is shorter.
    #[error("SIGBUS at {at:#x}")]
    Bus {
        /// The first byte that could not be accessed.
        at: usize,
    },
}

impl ModelFault {
    pub(super) fn at(self) -> usize {
        match self {
            Self::Segv { at } | Self::Bus { at } => at,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    None,
    Read,
    ReadWrite,
}

/// Pages with one access, one backing and one watch.
#[derive(Clone, Debug)]
pub(super) struct Region {
    end: usize,
    pub(super) access: Access,
    pub(super) backing: Option<Backing>,
    /// Number of the watch that it is registered with.
    pub(super) watch: Option<u64>,
    /// Whether core dumps and forked children have none of it.
    pub(super) secluded: bool,
}

#[derive(Clone, Debug, Default)]
enum Content {
    /// No page there; it may still be armed, by a marker.
    #[default]
    Absent,
    /// The zero page, or the file's.
    Clean,
    Private(Box<[u8]>),
}

#[derive(Clone, Debug, Default)]
struct Page {
    content: Content,
    armed: bool,
}

impl Page {
    fn is_marker(&self) -> bool {
        self.armed && matches!(self.content, Content::Absent)
    }
}

/// The memory of the modelled process.
#[derive(Debug)]
pub(super) struct Memory {
    page: PageSize,
    /// By first address; they do not overlap.
    regions: BTreeMap<usize, Region>,
    /// By address: what was touched or armed, always within a region.
    pages: BTreeMap<usize, Page>,
}

impl Memory {
    pub(super) fn new(page: PageSize) -> Self {
        Self {
            page,
            regions: BTreeMap::new(),
            pages: BTreeMap::new(),
        }
    }

    pub(super) fn page_size(&self) -> PageSize {
        self.page
    }

    fn page_at(&self, at: usize) -> PageRange {
        let one = PageRange::covering(self.page, at, 1);
        #[expect(
            clippy::expect_used,
            reason = "a model's addresses are far from the end"
        )]
        one.expect("the last page of the address space is never mapped")
    }

    /// The addresses of the pages of a range.
    pub(super) fn page_starts(&self, range: PageRange) -> impl Iterator<Item = usize> + use<> {
        (range.start()..range.end()).step_by(self.page.bytes())
    }

    pub(super) fn region(&self, at: usize) -> Option<&Region> {
        let (_, region) = self.regions.range(..=at).next_back()?;
        (region.end > at).then_some(region)
    }

    /// The first region that has a page in common with `range`.
    pub(super) fn overlap(&self, range: PageRange) -> Option<PageRange> {
        let (start, region) = self.regions.range(..range.end()).next_back()?;
        let there = PageRange::new(self.page, *start, region.end - start)?;
        there.intersect(range).map(|_common| there)
    }

    /// Tells whether every page of the range lies in a region that `fits`.
    pub(super) fn all(&self, range: PageRange, fits: impl Fn(&Region) -> bool) -> bool {
        let mut at = range.start();
        while at < range.end() {
            match self.region(at) {
                Some(region) if fits(region) => at = region.end,
                _ => return false,
            }
        }
        true
    }

    pub(super) fn accessible(&self) -> usize {
        let regions = self.regions.iter();
        let open = regions.filter(|(_, region)| region.access != Access::None);
        open.map(|(start, region)| region.end - start).sum()
    }

    /// Makes region borders at both ends of the range.
    fn split(&mut self, range: PageRange) {
        for at in [range.start(), range.end()] {
            if let Some((start, region)) = self.regions.range_mut(..at).next_back()
                && region.end > at
                && *start < at
            {
                let tail = region.clone();
                region.end = at;
                self.regions.insert(at, tail);
            }
        }
    }

    pub(super) fn unmap(&mut self, range: PageRange) {
        self.split(range);
        self.regions
            .retain(|start, _| !(range.start()..range.end()).contains(start));
        self.free(range);
    }

    /// Puts a fresh region there, whatever was there before.
    pub(super) fn map(&mut self, range: PageRange, access: Access, backing: Option<Backing>) {
        if range.is_empty() {
            return;
        }
        self.unmap(range);
        let region = Region {
            end: range.end(),
            access,
            backing,
            watch: None,
            secluded: false,
        };
        self.regions.insert(range.start(), region);
    }

    /// Frees the pages of a range, markers included; what is mapped there stays.
    pub(super) fn free(&mut self, range: PageRange) {
        self.pages
            .retain(|at, _| !(range.start()..range.end()).contains(at));
    }

    /// Changes the regions of a range.
    pub(super) fn change(&mut self, range: PageRange, mut change: impl FnMut(&mut Region)) {
        self.split(range);
        let inside = (Bound::Included(range.start()), Bound::Excluded(range.end()));
        for (_, region) in self.regions.range_mut(inside) {
            change(region);
        }
    }

    /// Takes the protection from the pages of a range, markers included.
    pub(super) fn disarm(&mut self, range: PageRange) {
        for (_, page) in self.pages.range_mut(range.start()..range.end()) {
            page.armed = false;
        }
    }

    /// Ends a watch: what it watched is disarmed.
    pub(super) fn close_watch(&mut self, watch: u64) {
        let mut watched = Vec::new();
        for (start, region) in &mut self.regions {
            if region.watch == Some(watch) {
                region.watch = None;
                watched.push((*start, region.end));
            }
        }
        for (start, end) in watched {
            for (_, page) in self.pages.range_mut(start..end) {
                page.armed = false;
            }
        }
    }

    pub(super) fn arm(&mut self, at: usize) {
        self.pages.entry(at).or_default().armed = true;
    }

    pub(super) fn state(&self, at: usize) -> ModelPage {
        let at = self.page.floor(at);
        let Some(region) = self.region(at) else {
            return ModelPage::Unmapped;
        };
        if region.access == Access::None {
            return ModelPage::Reserved;
        }
        match (
            self.pages.get(&at).map(|page| &page.content),
            &region.backing,
        ) {
            (None | Some(Content::Absent), None) => ModelPage::Hole,
            (None | Some(Content::Absent), Some(_)) => ModelPage::FileAbsent,
            (Some(Content::Clean), None) => ModelPage::Zero,
            (Some(Content::Clean), Some(_)) => ModelPage::File,
            (Some(Content::Private(_)), _) => ModelPage::Private,
        }
    }

    pub(super) fn is_armed(&self, at: usize) -> bool {
        let page = self.pages.get(&self.page.floor(at));
        page.is_some_and(|page| page.armed)
    }

    /// Tells whether a query reports the page. The watch of the region was checked before.
    pub(super) fn matches(&self, at: usize, query: Query) -> bool {
        let page = self.pages.get(&at);
        // To the kernel a marker, an armed page that is not there, looks like a page that was swapped out.
        let marker = page.is_some_and(Page::is_marker);
        let content = page.map_or(&Content::Absent, |page| &page.content);
        match query {
            // Huge pages are the kernel's own affair: the model has none.
            Query::Huge => false,
            Query::Touched => marker || !matches!(content, Content::Absent),
            Query::Private | Query::ArmAll => match content {
                Content::Absent => marker,
                Content::Clean => self
                    .region(at)
                    .is_some_and(|region| region.backing.is_none()),
                Content::Private(_) => true,
            },
            // What was never armed counts as written, even where there is nothing.
            Query::Written | Query::WrittenRearm => {
                self.region(at).is_some_and(|region| region.watch.is_some()) && !self.is_armed(at)
            }
        }
    }

    /// Brings in the page at `at` for reading, and copies what the program sees there.
    fn load(&mut self, at: usize) -> Result<Box<[u8]>, ModelFault> {
        let region = self.region(at).ok_or(ModelFault::Segv { at })?;
        if region.access == Access::None {
            return Err(ModelFault::Segv { at });
        }
        if let Some(Page {
            content: Content::Private(bytes),
            ..
        }) = self.pages.get(&at)
        {
            return Ok(bytes.clone());
        }
        let bytes = match &region.backing {
            None => vec![0; self.page.bytes()].into(),
            Some(file) => file.page(at, self.page).ok_or(ModelFault::Bus { at })?,
        };
        // A read keeps the arming, a marker's as well.
        self.pages.entry(at).or_default().content = Content::Clean;
        Ok(bytes)
    }

    /// Reads as the program does: pages come in, nothing becomes private.
    pub(super) fn read(&mut self, at: usize, buf: &mut [u8]) -> Result<(), ModelFault> {
        let mut done = 0;
        while done < buf.len() {
            let page = self.page_at(at + done);
            let seen = self
                .load(page.start())
                .map_err(|fault| fault.moved(at + done))?;
            let from = seen.get(at + done - page.start()..).unwrap_or_default();
            let into = buf.get_mut(done..).unwrap_or_default();
            let n = from.len().min(into.len());
            for (into, from) in into.iter_mut().zip(from) {
                *into = *from;
            }
            done += n;
        }
        Ok(())
    }

    /// Writes as the program does: pages become private, and lose their protection.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) -> Result<(), ModelFault> {
        let mut done = 0;
        while done < bytes.len() {
            let here = at + done;
            let page = self.page_at(here);
            if self.region(here).map(|region| region.access) != Some(Access::ReadWrite) {
                return Err(ModelFault::Segv { at: here });
            }
            let mut content = self.load(page.start()).map_err(|fault| fault.moved(here))?;
            let into = content.get_mut(here - page.start()..).unwrap_or_default();
            let from = bytes.get(done..).unwrap_or_default();
            let n = into.len().min(from.len());
            for (into, from) in into.iter_mut().zip(from) {
                *into = *from;
            }
            self.pages.insert(
                page.start(),
                Page {
                    content: Content::Private(content),
                    armed: false,
                },
            );
            done += n;
        }
        Ok(())
    }

    /// Puts a private, armed page where there is none.
    pub(super) fn install(&mut self, at: usize, bytes: &[u8]) -> bool {
        let page = self.pages.entry(at).or_default();
        if !matches!(page.content, Content::Absent) {
            return false;
        }
        *page = Page {
            content: Content::Private(bytes.into()),
            armed: true,
        };
        true
    }
}

impl ModelFault {
    /// The same fault, at the byte that was accessed rather than at its page.
    fn moved(self, at: usize) -> Self {
        match self {
            Self::Segv { .. } => Self::Segv { at },
            Self::Bus { .. } => Self::Bus { at },
        }
    }
}
