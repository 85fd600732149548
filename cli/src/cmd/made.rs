//! What is made from the command line's own description: completions and manual pages.

use std::{fs, io, path::Path};

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{args::Args, failure::Failure, output::Output};

/// Writes a shell's completions.
pub(super) fn completions(shell: Shell, out: &mut Output) -> Result<(), Failure> {
    let mut command = Args::command();
    clap_complete::generate(shell, &mut command, "segvm", out.bytes());
    Ok(())
}

/// Writes a page for the command and one for each verb.
pub(super) fn man(directory: &Path, out: &mut Output) -> Result<(), Failure> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| Failure::Write { path, source }
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    let mut command = Args::command();
    command.build();
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    let mut pages = vec![("segvm".to_owned(), command.clone())];
    pages.extend(verbs.filter(|verb| verb.get_name() != "help").map(|verb| {
        let name = format!("segvm-{}", verb.get_name());
        (name, verb.clone())
    }));
    for (name, command) in pages {
        let path = directory.join(format!("{name}.1"));
        let mut page = Vec::new();
        Man::new(command).title(&name).render(&mut page)?;
        fs::write(&path, page).map_err(failed(&path))?;
    }
    out.note(&format!("pages are in {}", directory.display()));
    Ok(())
}
