//! Where a page's commands run: a store, a home directory, and programs that can be called by name.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use segvm_e2e::programs::PROGRAMS;
use tempfile::TempDir;

/// Which program of which page a copy of this test is.
const PAGE: &str = "SEGVM_GUIDE_PAGE";
const PROGRAM: &str = "SEGVM_GUIDE_PROGRAM";
/// Begins the lines that tell commands apart in what the shell prints.
const MARK: &str = "@@guide";

pub(crate) struct Place {
    dir: TempDir,
    page: String,
}

impl Place {
    pub(crate) fn new(page: &str) -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
            page: page.to_owned(),
        };
        for made in ["bin", "exe", "home", "work"] {
            fs::create_dir(place.at(made)).unwrap();
        }
        // Those of other pages too: a page may look at what they leave.
        let names: BTreeSet<&str> = PROGRAMS.iter().map(|program| program.name).collect();
        for name in names {
            place.add(name);
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_segvm"), place.at("bin/segvm")).unwrap();
        place
    }

    fn at(&self, what: &str) -> PathBuf {
        self.dir.path().join(what)
    }

    /// A program is this very test under another name: who looks at an image is told the name of the file.
    fn add(&self, name: &str) {
        let file = self.at("exe").join(name);
        let this = env::current_exe().unwrap();
        if fs::hard_link(&this, &file).is_err() {
            fs::copy(&this, &file).unwrap();
        }
        let script = format!(
            "#!/bin/sh\n{PROGRAM}={name} {PAGE}={} exec {} \"$@\"\n",
            self.page,
            file.display()
        );
        let path = self.at("bin").join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/bin:/bin", self.at("bin").display());
        command
            .current_dir(self.at("work"))
            .env_clear()
            .envs(
                ["SEGVM_ENGINE", "RUST_BACKTRACE", "TMPDIR"]
                    .into_iter()
                    .filter_map(|name| Some((name, env::var_os(name)?))),
            )
            .env("PATH", path)
            .env("HOME", self.at("home"))
            .stdin(Stdio::null());
        command
    }

    /// Runs the commands in one shell; answers the status of each, and the lines that it printed.
    pub(crate) fn shell(&self, typed: &[&str]) -> Vec<(i32, Vec<String>)> {
        let mut script = String::from("exec 2>&1\ntrap 'kill -9 $(jobs -p) 2>/dev/null' EXIT\n");
        for command in typed {
            script += &format!("{command}\nstatus=$?; echo; echo '{MARK}' $status\n");
        }
        let file = self.at("script");
        fs::write(&file, script).unwrap();
        let run = self
            .command(Path::new("/bin/bash"))
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        let said = said.replace(&*self.at("home").to_string_lossy(), "/home/you");
        let (mut ran, mut lines) = (Vec::new(), Vec::new());
        for line in said.lines() {
            if let Some(status) = line.strip_prefix(MARK) {
                ran.push((status.trim().parse().unwrap(), std::mem::take(&mut lines)));
            } else if !line.contains(" Killed ") {
                // What the shell says of a job that was killed is not the command's.
                lines.push(line.to_owned());
            }
        }
        assert_eq!(
            ran.len(),
            typed.len(),
            "the shell ended early: {said}{}",
            String::from_utf8_lossy(&run.stderr)
        );
        ran
    }

    /// A program of the page, with a store of its own.
    fn alone(&self, name: &str) -> Command {
        let mut command = self.command(&self.at("bin").join(name));
        command.env("SEGVM_HOME", self.at("home").join(name));
        command
    }

    #[track_caller]
    pub(crate) fn run_to_its_end(&self, name: &str) {
        let run = self.alone(name).output().unwrap();
        assert!(
            run.status.success(),
            "{}: program {name}: {}\n{}{}",
            self.page,
            run.status,
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr)
        );
    }

    #[track_caller]
    pub(crate) fn kill_when_it_speaks(&self, name: &str) {
        let mut child = self.alone(name).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(
            !line.is_empty(),
            "{}: program {name} said nothing: {status}",
            self.page
        );
    }
}

/// In a copy of this test: the program that it was called as.
pub(crate) fn be_a_program() -> Option<ExitCode> {
    let (page, name) = (env::var(PAGE).ok()?, env::var(PROGRAM).ok()?);
    let of_page = PROGRAMS.iter().filter(|program| program.page == page);
    let known = of_page.chain(PROGRAMS).find(|program| program.name == name);
    Some((known?.run)())
}
