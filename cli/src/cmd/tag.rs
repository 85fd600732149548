//! `segvm tag`: names for commits.

use serde_json::json;

use super::size_of;
use crate::{
    args,
    failure::Failure,
    local::{Local, image_of, ref_of},
    output::{Align, Output, Table, age, bytes},
};

pub(super) fn run(local: &Local, args: &args::Tag, out: &mut Output) -> Result<(), Failure> {
    let image = image_of(&args.image)?;
    local.head(image)?;
    let Some(name) = &args.name else {
        return list(local, args, out);
    };
    if args.delete {
        local.home.untag(image, name)?;
        return if out.is_json() {
            out.json(&json!({ "image": image.as_str(), "deleted": name.as_str() }))
        } else {
            out.line(format!("{image}@{name} is gone; its commit stays"))
        };
    }
    // Open until the tag is durable: what it names is not collected meanwhile.
    let _store = local.store()?;
    let tag = local
        .home
        .tag(image, name, &ref_of(&args.image), local.now)?;
    let id = tag.record.commit_id;
    if out.is_json() {
        return out.json(&json!({
            "image": image.as_str(),
            "tag": name.as_str(),
            "commit": id.to_string(),
        }));
    }
    out.line(format!("{image}@{name} is {id:.12}"))
}

fn list(local: &Local, args: &args::Tag, out: &mut Output) -> Result<(), Failure> {
    let tags = local.home.tags(&args.image.name)?;
    if out.is_json() {
        let rows = tags.iter().map(|tag| {
            json!({
                "tag": tag.name.as_str(),
                "commit": tag.record.commit_id.to_string(),
                "time": tag.record.commit.time.to_string(),
                "given": tag.at.to_string(),
                "size": size_of(&tag.record),
            })
        });
        return out.json(&rows.collect());
    }
    let heads = [
        ("TAG", Align::Left),
        ("COMMIT", Align::Left),
        ("TIME", Align::Left),
        ("AGE", Align::Left),
        ("SIZE", Align::Right),
    ];
    let mut table = Table::new(&heads);
    for tag in &tags {
        let record = &tag.record;
        table.row([
            tag.name.to_string(),
            format!("{:.12}", record.commit_id),
            record.commit.time.to_string(),
            age(local.now, record.commit.time),
            bytes(size_of(record)),
        ]);
    }
    out.table(&table)
}
