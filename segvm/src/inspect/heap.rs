use super::segment::{Flaw, InspectError, Segment, SegmentBytes};
use crate::{
    heap::{HEAP_MAGIC, HEAP_VERSION, MAX_NAME},
    schema::{MOST_BYTES, Schema, SchemaError},
};

/// Where in a heap's header the directory of roots is said to be, and the header's length up to there.
const VERSION: u64 = 8;
const BASE: u64 = 16;
const ROOTS: u64 = 48;
const HEADER: u64 = 72;
/// Bytes of an entry of the directory.
const ENTRY: u64 = 128;
/// Roots that are looked at; a directory of more is damaged.
const MOST_ROOTS: u64 = 1 << 16;

/// A root as its heap's directory has it.
#[derive(Debug, Clone)]
pub struct RootInfo {
    /// The name that a program finds it by.
    pub name: String,
    /// Address of its value.
    pub address: u64,
    /// Bytes of it.
    pub size: u64,
    /// The fingerprint of its type.
    pub fingerprint: [u8; 32],
    /// What its type looks like; `None` where nothing is stored of it.
    pub schema: Option<Result<Schema, SchemaError>>,
}

/// Lists the roots of a heap, oldest first.
///
/// - **Errors**: [`InspectError::Flaw`] where it is no heap, or its directory makes no sense.
pub fn roots<B: SegmentBytes>(
    segment: &mut Segment<B>,
) -> Result<Vec<RootInfo>, InspectError<B::Error>> {
    let flaw = |offset, what| Err(InspectError::Flaw(Flaw { offset, what }));
    if segment.len < HEADER {
        return flaw(0, "too short for a heap");
    }
    if segment.long(0).map_err(InspectError::Read)? != HEAP_MAGIC {
        return flaw(0, "no heap begins here");
    }
    let found = u32::from_le_bytes(segment.array(VERSION).map_err(InspectError::Read)?);
    if found != HEAP_VERSION {
        let wanted = HEAP_VERSION;
        return Err(InspectError::Version { found, wanted });
    }
    if segment.long(BASE).map_err(InspectError::Read)? != segment.base {
        return flaw(BASE, "the heap was made for another address");
    }
    let mut word = |at| segment.long(at).map_err(InspectError::Read);
    let (at, len, room) = (word(ROOTS)?, word(ROOTS + 8)?, word(ROOTS + 16)?);
    if len > room || len > MOST_ROOTS {
        return flaw(ROOTS + 8, "more roots than there is room for");
    }
    if len == 0 {
        return Ok(Vec::new());
    }
    let Some(first) = segment.offset(at, len * ENTRY) else {
        return flaw(ROOTS, "a directory of roots outside the segment");
    };
    (0..len)
        .map(|n| entry(segment, first + n * ENTRY))
        .collect()
}

fn entry<B: SegmentBytes>(
    segment: &mut Segment<B>,
    at: u64,
) -> Result<RootInfo, InspectError<B::Error>> {
    let flaw = |offset, what| Err(InspectError::Flaw(Flaw { offset, what }));
    let name: [u8; MAX_NAME] = segment.array(at).map_err(InspectError::Read)?;
    let end = name.iter().position(|&byte| byte == 0);
    let name = name.get(..end.unwrap_or(MAX_NAME)).unwrap_or_default();
    let Ok(name) = std::str::from_utf8(name) else {
        return flaw(at, "a root's name that is not UTF-8");
    };
    let name = name.to_owned();
    let mut word = |at| segment.long(at).map_err(InspectError::Read);
    let (address, size, described) = (word(at + 64)?, word(at + 72)?, word(at + 88)?);
    let fingerprint = segment.array(at + 96).map_err(InspectError::Read)?;
    if segment.offset(address, size).is_none() {
        return flaw(at + 64, "a root outside the segment");
    }
    let schema = match described {
        0 => None,
        block => Some(schema(segment, at + 88, block)?),
    };
    Ok(RootInfo {
        name,
        address,
        size,
        fingerprint,
        schema,
    })
}

fn schema<B: SegmentBytes>(
    segment: &mut Segment<B>,
    at: u64,
    block: u64,
) -> Result<Result<Schema, SchemaError>, InspectError<B::Error>> {
    let flaw = |what| Err(InspectError::Flaw(Flaw { offset: at, what }));
    let Some(offset) = segment.offset(block, 8) else {
        return flaw("a schema outside the segment");
    };
    let len = segment.long(offset).map_err(InspectError::Read)?;
    let fits = len <= MOST_BYTES as u64 && segment.offset(block, 8 + len).is_some();
    let (true, Ok(len)) = (fits, usize::try_from(len)) else {
        return flaw("a schema that is too long");
    };
    let mut bytes = vec![0; len];
    let read = segment.bytes.read(offset + 8, &mut bytes);
    read.map_err(InspectError::Read)?;
    Ok(Schema::decode(&bytes))
}
