//! `segvm export`: the bytes of a segment, every block checked against its hash.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use serde_json::json;

use segvm_blockcache::{BlockId, BlockIndex, Store};
use segvm_home::{ImageRef, SegmentRecord};

use super::{blocks, diff};
use crate::{
    args::Export,
    failure::Failure,
    local::Local,
    output::{Output, bytes, printable},
};

pub(super) fn run(local: &Local, args: &Export, out: &mut Output) -> Result<(), Failure> {
    let record = local.resolve(&args.image)?;
    let segment = diff::find(&record, &args.segment)
        .ok_or_else(|| no_segment(&args.image, &args.segment, &record))?;
    let view = local.view(&[(&args.image.name, &record)])?;
    if args.file == Path::new("-") {
        return to_stdout(&view, segment, out);
    }
    let file = create(args)?;
    let failed = |source| Failure::Write {
        path: args.file.clone(),
        source,
    };
    // Holes stay holes: nothing is written there.
    file.set_len(segment.len).map_err(failed)?;
    let written = copy(&view, segment, |offset, bytes| {
        file.write_all_at(bytes, offset).map_err(failed)
    })?;
    file.sync_all().map_err(failed)?;
    if out.is_json() {
        return out.json(&json!({
            "commit": record.commit_id.to_string(),
            "segment": segment.name,
            "length": segment.len,
            "written": written,
            "file": args.file.display().to_string(),
        }));
    }
    out.line(format!(
        "{} of {}@{:.12}: {}, {} of it written and the rest holes",
        printable(&segment.name),
        args.image.name,
        record.commit_id,
        bytes(segment.len),
        bytes(written)
    ))
}

pub(super) fn no_segment(image: &ImageRef, segment: &str, record: &segvm_home::Record) -> Failure {
    let has = record.commit.segments.iter();
    Failure::NoSegment {
        image: image.name.clone(),
        segment: segment.to_owned(),
        has: has.map(|segment| printable(&segment.name)).collect(),
    }
}

fn create(args: &Export) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    // An image holds whatever the memory held: for nobody else's eyes.
    options.write(true).mode(0o600);
    if args.force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(&args.file).map_err(|source| Failure::Write {
        path: args.file.clone(),
        source,
    })
}

fn to_stdout(view: &Store, segment: &SegmentRecord, out: &mut Output) -> Result<(), Failure> {
    let mut at = 0;
    copy(view, segment, |offset, bytes| {
        zeros(out, offset - at)?;
        at = offset + u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        out.bytes().write_all(bytes).map_err(Failure::Output)
    })?;
    zeros(out, segment.len.saturating_sub(at))
}

fn zeros(out: &mut Output, len: u64) -> Result<(), Failure> {
    let mut zeros = io::Read::take(io::repeat(0), len);
    io::copy(&mut zeros, out.bytes())?;
    Ok(())
}

/// Hands every block to `put`, in order, with its place in bytes; answers how many bytes that were.
fn copy(
    view: &Store,
    segment: &SegmentRecord,
    mut put: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let size = segment.block_size;
    let mut buffer = vec![0; size.bytes()];
    let (mut written, mut failed) = (0, Ok(()));
    let mut block = |index: BlockIndex, id: BlockId| {
        view.read_block(&id, &mut buffer)
            .map_err(|source| Failure::Block {
                segment: segment.name.clone(),
                index: index.0,
                source,
            })?;
        let offset = size.offset(index);
        let len = segment
            .len
            .saturating_sub(offset)
            .min(blocks::size(segment));
        let (bytes, _behind_the_end) = buffer.split_at(usize::try_from(len).unwrap_or(0));
        written += len;
        put(offset, bytes)
    };
    blocks::each_until(view, segment, |index, id| {
        failed = block(index, id);
        failed.is_ok()
    })?;
    failed.map(|()| written)
}
