//! The machine that was measured: without it a figure means nothing.

use std::{
    fs,
    path::Path,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

/// What is worth knowing about the machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Name and value, in the order in which they are printed.
    pub facts: Vec<(&'static str, String)>,
}

impl Machine {
    /// Looks at this machine, and at the file system on which `data` lies.
    #[must_use]
    pub fn here(data: &Path) -> Self {
        let facts = vec![
            ("date", today()),
            ("kernel", read("/proc/sys/kernel/osrelease")),
            (
                "CPU",
                after("/proc/cpuinfo", "model name\t: ")
                    .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            ),
            (
                "cores",
                thread::available_parallelism().map_or_else(|_| "?".to_owned(), |n| n.to_string()),
            ),
            ("memory", memory()),
            ("file system", file_system(data)),
            (
                "transparent huge pages",
                read("/sys/kernel/mm/transparent_hugepage/enabled"),
            ),
            ("page size", format!("{} B", rustix::param::page_size())),
        ];
        Self { facts }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn after(path: &str, prefix: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(prefix))?;
    Some(line.trim().to_owned())
}

fn memory() -> String {
    after("/proc/meminfo", "MemTotal:")
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
        .map_or_else(|| "unknown".to_owned(), |kib| format!("{} MiB", kib >> 10))
}

/// Type and device of the mount that holds the path: the longest mount point that is a prefix of it.
fn file_system(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let mounts = read("/proc/self/mounts");
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (device, point, kind) = (words.next()?, words.next()?, words.next()?);
            path.starts_with(point)
                .then(|| (point.len(), format!("{kind} on {device}")))
        })
        .max_by_key(|(len, _)| *len)
        .map_or_else(|| "unknown".to_owned(), |(_, text)| text)
}

/// Today in UTC, as `2026-11-25`.
fn today() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant's `civil_from_days`).
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_782), (2026, 11, 25));
        assert_eq!(civil(20_819), (2027, 1, 1));
    }
}
