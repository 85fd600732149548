//! Makes modules of the programs in the guide, so that tests can run them.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

#[path = "src/page.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the library and its tests need the rest"
)]
mod page;

fn main() -> io::Result<()> {
    let root = Path::new(&variable("CARGO_MANIFEST_DIR")).join("..");
    let out = PathBuf::from(variable("OUT_DIR"));
    let guide = root.join("docs/guide");
    for path in [&guide, &root.join("README.md")] {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let mut paths = vec![root.join("README.md")];
    for entry in fs::read_dir(&guide)? {
        paths.push(entry?.path());
    }
    paths.sort();
    let (mut modules, mut programs, mut pages) = (String::new(), String::new(), String::new());
    for path in paths
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
    {
        let text = fs::read_to_string(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let pieces = match page::pieces(&text) {
            Ok(pieces) => pieces,
            Err(lines) => {
                println!(
                    "cargo::error={}, lines {lines:?}: blocks that say neither how they are run nor why not (e2e/src/page.rs)",
                    path.display()
                );
                continue;
            }
        };
        pages += &format!("({name:?}, include_str!({:?})),\n", path.canonicalize()?);
        for piece in pieces {
            if let page::Kind::Program(program, _) = piece.kind {
                let page = name.trim_end_matches(".md");
                let module = format!("{page}_{program}_{}", piece.line);
                let module = module.replace('-', "_").to_lowercase();
                let file = out.join(format!("{module}.rs"));
                let run = "pub(super) fn run() -> ::std::process::ExitCode { super::code(main()) }";
                fs::write(&file, format!("{}\n{run}\n", piece.text))?;
                modules += &format!("{LINTS}\nmod {module} {{ include!({file:?}); }}\n");
                programs += &format!(
                    "Program {{ page: {name:?}, name: {program:?}, run: {module}::run }},\n"
                );
            }
        }
    }
    let generated = format!(
        "{modules}\n/// All of them.\npub const PROGRAMS: &[Program] = &[\n{programs}];\n\
         /// The file's name, and its text.\npub const PAGES: &[(&str, &str)] = &[\n{pages}];\n"
    );
    fs::write(out.join("programs.rs"), generated)
}

/// The programs are written for readers, not for the lints of this workspace.
const LINTS: &str = "#[allow(dead_code, missing_docs, missing_debug_implementations, clippy::all, clippy::pedantic, \
                     clippy::restriction, reason = \"an example\")]";

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}
