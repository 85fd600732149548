//! `segvm steal`: takes an image from whoever has it.

use serde_json::json;

use segvm_home::ImageName;

use super::{holder_json, whereabouts};
use crate::{
    failure::Failure,
    local::Local,
    output::{Output, printable},
};

pub(super) fn run(local: &Local, image: &ImageName, out: &mut Output) -> Result<(), Failure> {
    // A mistyped name would make a lease of what is no image.
    if local.home.holder(image)?.is_none() {
        local.head(image)?;
    }
    let lease = local.home.steal(image, local.holder())?;
    let (token, from) = (lease.token(), lease.taken_from().cloned());
    // Whoever opens the image next takes it from here.
    drop(lease);
    if out.is_json() {
        return out.json(&json!({
            "image": image.as_str(),
            "token": token.number(),
            "taken_from": holder_json(from.as_ref()),
        }));
    }
    match from {
        Some(from) => out.line(format!(
            "{image} is taken from {}, {}: its next commit is refused, and it may branch",
            printable(&from.program),
            whereabouts(&from)
        )),
        None => out.line(format!("{image} is free: nobody had it open for writing")),
    }
}
