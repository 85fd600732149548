//! `segvm show --root`: a typed value as JSON, from the schema that is stored with it. The program is not run, and nothing is mapped.

use std::{collections::HashMap, io::Write as _};

use segvm::inspect::{self, Flaw, InspectError, Limits, RootInfo, SegmentBytes};
use segvm_blockcache::{Store, Tree};
use segvm_home::{Record, SegmentKind, SegmentRecord};

use super::{blocks, typed_json::Json};
use crate::{
    args::Show,
    failure::Failure,
    local::Local,
    output::{Output, printable},
};

/// Blocks that are kept at hand, in bytes.
const CACHE: u64 = 32 << 20;

pub(super) fn run(local: &Local, args: &Show, root: &str, out: &mut Output) -> Result<(), Failure> {
    let record = local.resolve(&args.image)?;
    let view = local.view(&[(&args.image.name, &record)])?;
    let (mut segment, found) = find(&view, args, root, &record)?;
    let schema = match &found.schema {
        Some(Ok(schema)) => schema,
        Some(Err(source)) => {
            return Err(Failure::Schema {
                root: printable(root),
                source: *source,
            });
        }
        None => {
            return Err(Failure::NoSchema {
                root: printable(root),
            });
        }
    };
    let limits = Limits {
        items: args.limit,
        depth: args.depth,
        ..Limits::default()
    };
    let value = inspect::value(&mut segment, schema, found.address, limits)?;
    let mut json = Json::default();
    if out.is_json() {
        json.envelope(
            &head(
                args,
                &record,
                segment.bytes.record,
                &found,
                &schema.to_string(),
            ),
            &value,
        );
    } else {
        json.value(&value, 0);
    }
    writeln!(out.bytes(), "{}", json.text)?;
    if !out.is_json() && json.cut {
        // The value first, also where both go to one place.
        out.flush()?;
        out.note(
            "some of it was left out: `--limit N` shows more of long collections, `--depth N` goes deeper",
        );
    }
    match json.first_flaw {
        None => Ok(()),
        Some(first) => Err(Failure::RootFlaws {
            root: printable(root),
            flaws: json.flaws,
            first,
        }),
    }
}

/// What is said of a root beside its value.
fn head(
    args: &Show,
    record: &Record,
    segment: &SegmentRecord,
    root: &RootInfo,
    of: &str,
) -> [(&'static str, String); 6] {
    let hex = root.fingerprint.iter().map(|byte| format!("{byte:02x}"));
    [
        ("image", args.image.name.to_string()),
        ("commit", record.commit_id.to_string()),
        ("segment", segment.name.clone()),
        ("root", root.name.clone()),
        ("type", of.to_owned()),
        ("fingerprint", hex.collect()),
    ]
}

/// The bytes of a segment of a commit, block by block, each checked against its hash.
struct Blocks<'v> {
    view: &'v Store,
    record: &'v SegmentRecord,
    tree: Tree,
    /// By index; `None` for a hole.
    at_hand: HashMap<u64, Option<Vec<u8>>>,
}

type Segment<'v> = inspect::Segment<Blocks<'v>>;

impl<'v> Blocks<'v> {
    fn of(view: &'v Store, record: &'v SegmentRecord) -> Result<Segment<'v>, Failure> {
        let tree = Tree::open(view, record.tree).map_err(|source| Failure::Tree {
            segment: record.name.clone(),
            source,
        })?;
        Ok(Segment {
            base: record.base,
            len: record.len,
            bytes: Self {
                view,
                record,
                tree,
                at_hand: HashMap::new(),
            },
        })
    }

    fn block(&mut self, at: u64) -> Result<Option<&[u8]>, Failure> {
        let size = self.record.block_size;
        if !self.at_hand.contains_key(&at) {
            let index = size.index(at * blocks::size(self.record));
            let id = self.tree.get(self.view, index);
            let id = id.map_err(|source| Failure::Tree {
                segment: self.record.name.clone(),
                source,
            })?;
            let block = match id {
                None => None,
                Some(id) => {
                    let mut bytes = vec![0; size.bytes()];
                    let read = self.view.read_block(&id, &mut bytes);
                    read.map_err(|source| Failure::Block {
                        segment: self.record.name.clone(),
                        index: at,
                        source,
                    })?;
                    Some(bytes)
                }
            };
            if self.at_hand.len() as u64 * blocks::size(self.record) >= CACHE {
                self.at_hand.clear();
            }
            self.at_hand.insert(at, block);
        }
        Ok(self.at_hand.get(&at).and_then(Option::as_deref))
    }
}

impl SegmentBytes for Blocks<'_> {
    type Error = Failure;

    fn read(&mut self, mut offset: u64, mut out: &mut [u8]) -> Result<(), Failure> {
        let size = blocks::size(self.record);
        while !out.is_empty() {
            let within = usize::try_from(offset % size).unwrap_or(usize::MAX);
            let here = usize::try_from(size)
                .unwrap_or(usize::MAX)
                .saturating_sub(within)
                .min(out.len());
            let (part, rest) = out.split_at_mut(here);
            let block = self.block(offset / size)?;
            match block.and_then(|block| block.get(within..within + here)) {
                Some(bytes) => part.copy_from_slice(bytes),
                None => part.fill(0),
            }
            offset += here as u64;
            out = rest;
        }
        Ok(())
    }
}

/// The heap that has the root: one alone, or the one that was named.
fn find<'v>(
    view: &'v Store,
    args: &Show,
    root: &str,
    record: &'v Record,
) -> Result<(Segment<'v>, RootInfo), Failure> {
    let heaps = record.commit.segments.iter().filter(|segment| {
        let named = args.segment.as_ref();
        segment.kind == SegmentKind::Heap && named.is_none_or(|named| *named == segment.name)
    });
    let (mut found, mut has) = (Vec::new(), Vec::new());
    for heap in heaps {
        let mut segment = Blocks::of(view, heap)?;
        let roots = inspect::roots(&mut segment).map_err(|error| in_heap(heap, error))?;
        for info in roots {
            has.push(printable(&info.name));
            if info.name == root {
                found.push((heap, info));
            }
        }
    }
    if found.len() > 1 {
        return Err(Failure::RootTwice {
            root: printable(root),
            segments: found
                .iter()
                .map(|(heap, _)| printable(&heap.name))
                .collect(),
        });
    }
    match found.pop() {
        Some((heap, info)) => Ok((Blocks::of(view, heap)?, info)),
        None => Err(Failure::NoRoot {
            image: args.image.name.clone(),
            root: printable(root),
            has,
        }),
    }
}

fn in_heap(heap: &SegmentRecord, error: InspectError<Failure>) -> Failure {
    let segment = printable(&heap.name);
    match error {
        InspectError::Read(failure) => failure,
        InspectError::Flaw(flaw) => Failure::Heap { segment, flaw },
        InspectError::Version { found, wanted } => Failure::HeapVersion {
            segment,
            found,
            wanted,
        },
        _ => Failure::Heap {
            segment,
            flaw: Flaw {
                offset: 0,
                what: "not readable",
            },
        },
    }
}
