//! Kernel, container, memory, limits.

use std::{env, fs, path::Path, thread};

use rustix::process::{Resource, getrlimit};
use segvm_os::{Features, Overcommit, available_memory};

use super::{Fact, State};
use crate::output::{bytes, count};

/// A session uses at most so many maps, and a program has its own.
const MAPS_WANTED: u64 = 16 << 10;
/// Packs that stay open, files of homes and stores, and a program's own.
const FILES_WANTED: u64 = 1024;

pub(super) fn look(features: &Features) -> Vec<Fact> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    vec![
        Fact::good(
            "machine",
            format!(
                "{}, {}, {cpus} processors",
                segvm_os::host_name(),
                env::consts::ARCH
            ),
            env::consts::ARCH,
        ),
        Fact::good(
            "kernel",
            format!("Linux {}", features.kernel_release),
            features.kernel_release.as_str(),
        ),
        container(),
        page_size(features),
        memory(),
        cgroup(),
        overcommit(features.overcommit),
        max_maps(features.max_maps),
        huge_pages(),
        files(),
        locked(),
    ]
}

fn page_size(features: &Features) -> Fact {
    match features.page_size {
        Some(page) => {
            let size = u64::try_from(page.bytes()).unwrap_or(u64::MAX);
            Fact::good("page size", bytes(size), size)
        }
        None => Fact::good("page size", "not supported", ())
            .but(State::Bad, "boot a kernel with pages of 4, 16 or 64 KiB"),
    }
}

fn container() -> Fact {
    let there = |path: &str| Path::new(path).exists();
    let kind = if env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        "kubernetes"
    } else if there("/.dockerenv") {
        "docker"
    } else if there("/run/.containerenv") {
        "podman"
    } else {
        "none seen"
    };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let filter = match status_field(&status, "Seccomp") {
        Some("0") => "system calls are not filtered",
        Some(_) => "system calls are filtered (seccomp)",
        None => "whether system calls are filtered is not known",
    };
    Fact::good("container", format!("{kind}; {filter}"), kind)
}

fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = status.lines();
    lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

fn memory() -> Fact {
    match available_memory() {
        Some(available) => Fact::good(
            "memory",
            format!("{} available", bytes(available)),
            available,
        ),
        None => Fact::good("memory", "not known: /proc/meminfo cannot be read", ()),
    }
}

/// The least limit of the control groups that this process is in; what a session maps from packs counts as cache there.
fn cgroup() -> Fact {
    let name = "cgroup memory";
    let mine = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match cgroup_limit(&mine, &|path| fs::read_to_string(path).ok()) {
        Some(limit) => Fact::good(name, format!("limited to {}", bytes(limit)), limit),
        None => Fact::good(name, "no limit seen", ()),
    }
}

fn cgroup_limit(mine: &str, read: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in mine.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // A limit of a group above holds too. In a container the path may be one of outside: then the mount is ours.
        for group in Path::new(path).ancestors() {
            let group = group.to_string_lossy();
            let limit = read(&format!("{mount}{}/{file}", group.trim_end_matches('/')));
            let limit = limit.and_then(|text| text.trim().parse::<u64>().ok());
            // The first version's word for "none" is the largest multiple of a page.
            if let Some(limit) = limit.filter(|limit| *limit < 1 << 62) {
                least = Some(least.map_or(limit, |least| least.min(limit)));
            }
        }
    }
    least
}

fn overcommit(overcommit: Overcommit) -> Fact {
    let name = "overcommit";
    match overcommit {
        Overcommit::Heuristic => Fact::good(name, "heuristic: reservations are free", 0),
        Overcommit::Always => Fact::good(name, "always: reservations are free", 1),
        Overcommit::Never => Fact::good(name, "never: reservations count in full", 2).but(
            State::Warn,
            "sysctl vm.overcommit_memory=0, or reserve less for each segment",
        ),
        _ => Fact::good(name, "not known", ()),
    }
}

fn max_maps(maps: Option<u64>) -> Fact {
    let name = "max_map_count";
    match maps {
        None => Fact::good(name, "not known", ()),
        Some(maps) if maps < MAPS_WANTED => Fact::good(name, count(maps), maps)
            .but(State::Warn, format!("sysctl vm.max_map_count={}", 64 << 10)),
        Some(maps) => Fact::good(name, count(maps), maps),
    }
}

fn huge_pages() -> Fact {
    let name = "huge pages";
    let text =
        fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    match chosen(&text) {
        Some("never") => Fact::good(name, "never", "never").but(
            State::Warn,
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled: large images are then read faster",
        ),
        Some(chosen) => Fact::good(name, chosen, chosen),
        None => Fact::good(name, "not known", ()),
    }
}

/// Of `always [madvise] never` the one in brackets.
fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0)
}

fn files() -> Fact {
    let name = "open files";
    match getrlimit(Resource::Nofile).current {
        Some(files) if files < FILES_WANTED => Fact::good(name, count(files), files).but(
            State::Warn,
            format!("ulimit -n {FILES_WANTED} (docker: --ulimit nofile={FILES_WANTED})"),
        ),
        Some(files) => Fact::good(name, count(files), files),
        None => Fact::good(name, "no limit", ()),
    }
}

fn locked() -> Fact {
    let name = "locked memory";
    match getrlimit(Resource::Memlock).current {
        Some(limit) => Fact::good(name, format!("at most {}", bytes(limit)), limit),
        None => Fact::good(name, "no limit", ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read_as_they_are() {
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
        assert_eq!(chosen(""), None);
        let status = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(status_field(status, "Seccomp"), Some("2"));
        assert_eq!(status_field(status, "Speculation"), None);
    }

    #[test]
    fn the_least_limit_of_all_groups_counts() {
        let read = |path: &str| {
            let text = match path {
                "/sys/fs/cgroup/a/b/memory.max" => "max\n",
                "/sys/fs/cgroup/a/memory.max" => "4096\n",
                "/sys/fs/cgroup/memory/c/memory.limit_in_bytes" => "8192\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes" => "9223372036854771712\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(cgroup_limit("0::/a/b\n", &read), Some(4096));
        assert_eq!(cgroup_limit("4:memory:/c\n5:cpu:/x\n", &read), Some(8192));
        assert_eq!(cgroup_limit("4:memory:/\n0::/\n", &read), None);
        assert_eq!(cgroup_limit("rubbish", &read), None);
    }
}
