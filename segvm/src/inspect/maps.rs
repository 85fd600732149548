//! The entries of maps, by docs/format.md 8.5.

use super::{
    segment::SegmentBytes,
    value::{Cut, Reader, Value, flaw},
};
use crate::schema::{Schema, TypeRef};

/// Control bytes of a table that are copied behind the last.
const WIDTH: u64 = 16;
/// Control bytes that are read at once.
const CHUNK: u64 = 4096;
/// Entries of a node, and the most levels that a tree of 2^64 entries has.
const MOST: u64 = 11;
const HIGHEST: u64 = 32;

/// Where value and next entry lie behind a key.
fn pair(schema: &Schema, key: TypeRef, value: TypeRef) -> Option<(u64, u64)> {
    let (key, value) = (schema.get(key), schema.get(value));
    let at = key.size.checked_next_multiple_of(value.align)?;
    let end = at.checked_add(value.size)?;
    Some((
        at,
        end.checked_next_multiple_of(key.align.max(value.align))?,
    ))
}

pub(super) fn hash_map<B: SegmentBytes>(
    reader: &mut Reader<'_, B>,
    key: TypeRef,
    value: TypeRef,
    offset: u64,
    depth: u32,
) -> Result<Value, B::Error> {
    let segment = &mut *reader.segment;
    let (controls, slots) = (segment.long(offset)?, segment.long(offset + 8)?);
    let len = segment.long(offset + 16)?;
    if slots == 0 && len == 0 {
        return Ok(Value::Map(Vec::new(), 0));
    }
    let table = pair(reader.schema, key, value).and_then(|(at, size)| {
        let bytes = slots.checked_mul(size)?;
        let first = controls.checked_sub(bytes)?;
        let all = bytes.checked_add(slots)?.checked_add(WIDTH)?;
        let align = reader
            .schema
            .get(key)
            .align
            .max(reader.schema.get(value).align);
        let block = reader.segment.offset(first, all)?;
        (slots.is_power_of_two() && len < slots && first.is_multiple_of(align)).then_some((
            block + bytes,
            at,
            size,
        ))
    });
    let Some((controls, value_at, size)) = table else {
        return Ok(flaw(offset, "a hash map whose table makes no sense"));
    };
    let mut entries = Vec::new();
    let (mut seen, mut at) = (0, 0);
    while at < slots {
        let n = CHUNK.min(slots - at);
        if !reader.may_read(n) {
            return Ok(Value::Cut(Cut::Enough));
        }
        let mut chunk = vec![0; usize::try_from(n).unwrap_or(0)];
        reader.segment.bytes.read(controls + at, &mut chunk)?;
        for (slot, &control) in (at..).zip(&chunk) {
            if control & 0x80 != 0 {
                continue;
            }
            seen += 1;
            if seen > len {
                return Ok(flaw(offset, "a hash map with more entries than it says"));
            }
            if entries.len() as u64 == reader.limits.items || reader.limits.values == 0 {
                return Ok(Value::Map(entries, len - (seen - 1)));
            }
            // Slots lie before the control bytes, the first one last.
            let place = controls - (slot + 1) * size;
            let key = reader.value(key, place, depth)?;
            let value = reader.value(value, place + value_at, depth)?;
            entries.push((key, value));
        }
        at += n;
    }
    if seen < len {
        return Ok(flaw(offset, "a hash map with fewer entries than it says"));
    }
    Ok(Value::Map(entries, 0))
}

/// Where things lie in a node.
struct Nodes {
    key: TypeRef,
    value: TypeRef,
    keys: u64,
    values: u64,
    children: u64,
    leaf: u64,
    inner: u64,
    align: u64,
}

impl Nodes {
    fn of(schema: &Schema, key: TypeRef, value: TypeRef) -> Option<Self> {
        let (k, v) = (schema.get(key), schema.get(value));
        let align = k.align.max(v.align).max(8);
        let keys = 8_u64.checked_next_multiple_of(k.align)?;
        let values = keys
            .checked_add(k.size.checked_mul(MOST)?)?
            .checked_next_multiple_of(v.align)?;
        let leaf = values
            .checked_add(v.size.checked_mul(MOST)?)?
            .checked_next_multiple_of(align)?;
        let inner = leaf
            .checked_add(8 * (MOST + 1))?
            .checked_next_multiple_of(align)?;
        Some(Self {
            key,
            value,
            keys,
            values,
            children: leaf,
            leaf,
            inner,
            align,
        })
    }
}

/// A node that the walk is in: where it lies, how far above the leaves, and which of its parts comes next.
struct At {
    offset: u64,
    height: u64,
    len: u64,
    next: u64,
}

pub(super) fn btree_map<B: SegmentBytes>(
    reader: &mut Reader<'_, B>,
    key: TypeRef,
    value: TypeRef,
    offset: u64,
    depth: u32,
) -> Result<Value, B::Error> {
    let segment = &mut *reader.segment;
    let (top, height) = (segment.long(offset)?, segment.long(offset + 8)?);
    let len = segment.long(offset + 16)?;
    if top == 0 && len == 0 {
        return Ok(Value::Map(Vec::new(), 0));
    }
    let Some(nodes) = Nodes::of(reader.schema, key, value).filter(|_| height <= HIGHEST) else {
        return Ok(flaw(offset, "a tree that is too high"));
    };
    let mut entries = Vec::new();
    let mut path = Vec::new();
    match enter(reader, &nodes, top, height, offset)? {
        Ok(node) => path.push(node),
        Err(flaw) => return Ok(flaw),
    }
    while let Some(node) = path.last_mut() {
        // Child 0, entry 0, child 1, entry 1, ..: even steps are children.
        let (step, inner) = (node.next, node.height > 0);
        node.next += 1;
        let (at, is_child) = match inner {
            true => (step / 2, step % 2 == 0),
            false => (step, false),
        };
        let (offset_of, height, in_node) = (node.offset, node.height, node.len);
        if is_child && at <= in_node {
            let link = offset_of + nodes.children + 8 * at;
            let child = reader.segment.long(link)?;
            match enter(reader, &nodes, child, height - 1, link)? {
                Ok(node) => path.push(node),
                Err(flaw) => return Ok(flaw),
            }
        } else if !is_child && at < in_node {
            if entries.len() as u64 == len {
                return Ok(flaw(offset, "a map with more entries than it says"));
            }
            if entries.len() as u64 == reader.limits.items || reader.limits.values == 0 {
                let more = len - entries.len() as u64;
                return Ok(Value::Map(entries, more));
            }
            let (k, v) = (reader.schema.get(key).size, reader.schema.get(value).size);
            let key = reader.value(nodes.key, offset_of + nodes.keys + at * k, depth)?;
            let value = reader.value(nodes.value, offset_of + nodes.values + at * v, depth)?;
            entries.push((key, value));
        } else {
            path.pop();
        }
        if !reader.may_read(8) {
            return Ok(Value::Cut(Cut::Enough));
        }
    }
    if (entries.len() as u64) < len {
        return Ok(flaw(offset, "a map with fewer entries than it says"));
    }
    Ok(Value::Map(entries, 0))
}

fn enter<B: SegmentBytes>(
    reader: &mut Reader<'_, B>,
    nodes: &Nodes,
    address: u64,
    height: u64,
    from: u64,
) -> Result<Result<At, Value>, B::Error> {
    let size = if height == 0 { nodes.leaf } else { nodes.inner };
    let place = reader.segment.offset(address, size);
    let Some(offset) = place.filter(|_| address.is_multiple_of(nodes.align)) else {
        return Ok(Err(flaw(from, "a node outside the segment")));
    };
    let len = reader.segment.long(offset)?;
    if len > MOST {
        return Ok(Err(flaw(offset, "a node with more entries than fit")));
    }
    Ok(Ok(At {
        offset,
        height,
        len,
        next: 0,
    }))
}
