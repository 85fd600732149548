//! `segvm rm`: removes images.

use serde_json::json;

use segvm_home::ImageName;

use crate::{failure::Failure, local::Local, output::Output};

pub(super) fn run(local: &Local, images: &[ImageName], out: &mut Output) -> Result<(), Failure> {
    local.must_be_there()?;
    let holder = local.holder();
    let mut removed = Vec::with_capacity(images.len());
    // In order, and no further than the first that cannot go: what was removed is said either way.
    let done = images.iter().try_for_each(|image| {
        local.home.remove(image, &holder)?;
        removed.push(image.as_str());
        Ok(())
    });
    if out.is_json() {
        out.json(&json!({ "removed": removed }))?;
    } else {
        for image in removed {
            out.line(format!("{image} is gone; `segvm gc` frees its blocks"))?;
        }
    }
    done
}
